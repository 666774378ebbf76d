//! The steps about what surrounds the gateway: alerts, manifests, licences.

use anyhow::{Context as _, Result, ensure};

use super::{Context, Outcome, pass};

pub(super) fn rules(context: &Context) -> Result<Outcome> {
    let Some(promtool) = context.tool("promtool") else {
        return Ok(Outcome::Skipped("promtool is missing; Debian has it in `prometheus`".to_owned()));
    };
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        pass(context.command(&promtool).args(arguments).current_dir(context.root.join("deploy/prometheus")))?;
    }
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
    pass(context.command(python).arg("deploy/check.py").arg(file))?;
    Ok(Outcome::Passed)
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
