//! The steps about what surrounds the gateway: alerts, manifests, licences.

use anyhow::{Context as _, Result, ensure};

use super::{Context, Outcome, pass};
use crate::workspace::{Executables, Profile, cargo};

pub(super) fn rules(context: &Context) -> Result<Outcome> {
    let Some(promtool) = context.tool("promtool") else {
        return Ok(Outcome::Skipped("promtool is missing; Debian has it in `prometheus`".to_owned()));
    };
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        pass(context.command(&promtool).args(arguments).current_dir(context.root.join("deploy/prometheus")))?;
    }
    // What a running gateway tells Prometheus, checked by the same tool.
    let built = Executables::build(&context.root, &["gateway-user"], Profile::Dev)?;
    pass(
        cargo(&context.root)
            .args(["test", "--locked", "--package=gateway-tests", "--test=metrics", "--", "--ignored"])
            .env("AOAI_GATEWAY_BIN", built.path("aoai-gateway")?)
            .env("PROMTOOL", promtool),
    )?;
    Ok(Outcome::Passed)
}

/// Renders the manifests as a cluster would get them and checks the result, and the files beside them.
pub(super) fn manifests(context: &Context) -> Result<Outcome> {
    let python = context.python();
    if !python.is_file() {
        return Ok(Outcome::Skipped(
            "no Python environment; `cargo xtask test --only setup` makes it".to_owned(),
        ));
    }
    let Some(kubectl) = context.tool("kubectl") else {
        return Ok(Outcome::Skipped("kubectl is missing; Debian has it in `kubernetes-client`".to_owned()));
    };
    let rendered = context
        .command(&kubectl)
        .args(["kustomize", "deploy/kubernetes"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start kubectl")?;
    ensure!(rendered.status.success(), "kubectl kustomize ended with {}", rendered.status);
    let file = context.root.join("target/manifests.yaml");
    std::fs::write(&file, rendered.stdout).with_context(|| file.display().to_string())?;
    pass(context.command(&python).arg("deploy/check.py").arg(file))?;
    pass(context.command(python).arg("deploy/bicep_test.py"))?;
    configuration(context)?;
    Ok(Outcome::Passed)
}

/// Has the gateway itself check the cluster's configuration, with the pod's paths led to a folder here.
fn configuration(context: &Context) -> Result<()> {
    let built = Executables::build(&context.root, &["gateway-user", "gateway-tests"], Profile::Dev)?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let here = folder.path().to_str().context("a temporary folder with an unusual name")?;
    pass(context.command(built.path("throwaway-certificate")?).arg(here))?;
    std::fs::write(folder.path().join("tenants.toml"), "").context("tenants.toml")?;
    let mut text = std::fs::read_to_string(context.root.join("deploy/kubernetes/gateway.toml"))
        .context("deploy/kubernetes/gateway.toml")?;
    for path in ["/etc/aoai-gateway-tls", "/etc/aoai-gateway-tenants", "/var/lib/aoai-gateway"] {
        ensure!(text.contains(path), "deploy/kubernetes/gateway.toml does not name {path}");
        text = text.replace(path, here);
    }
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, text).context("gateway.toml")?;
    pass(context.command(built.path("aoai-gateway")?).args(["check", "--config"]).arg(config))
}

/// Checks every crate in the lock file against deny.toml. Advisories need the network and are not part of this.
pub(super) fn dependencies(context: &Context) -> Result<Outcome> {
    let Some(deny) = context.tool("cargo-deny") else {
        return Ok(Outcome::Skipped(
            "cargo-deny is missing; `cargo xtask test --only setup` builds it".to_owned(),
        ));
    };
    pass(context.command(deny).args([
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    Ok(Outcome::Passed)
}
