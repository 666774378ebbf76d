//! The steps that cargo alone can run.

use anyhow::Result;

use super::{Context, Outcome, pass};
use crate::ebpf::Ebpf;
use crate::workspace::{Executables, Profile, cargo};

pub(super) fn format(context: &Context) -> Result<Outcome> {
    pass(cargo(&context.root).args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::Passed)
}

pub(super) fn lint(context: &Context) -> Result<Outcome> {
    pass(cargo(&context.root).args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    Ok(Outcome::Passed)
}

pub(super) fn docs(context: &Context) -> Result<Outcome> {
    pass(
        cargo(&context.root)
            .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    Ok(Outcome::Passed)
}

pub(super) fn unit(context: &Context) -> Result<Outcome> {
    pass(cargo(&context.root).args([
        "test",
        "--locked",
        "--no-fail-fast",
        "--package=gateway-ebpf",
        "--package=gateway-user",
        "--package=gateway-fuzz",
        "--package=xtask",
    ]))?;
    Ok(Outcome::Passed)
}

pub(super) fn end_to_end(context: &Context) -> Result<Outcome> {
    let built = Executables::build(&context.root, &["gateway-user"], Profile::Dev)?;
    pass(
        cargo(&context.root)
            .args(["test", "--locked", "--package=gateway-tests", "--no-fail-fast"])
            .env("AOAI_GATEWAY_BIN", built.path("aoai-gateway")?),
    )?;
    if super::is_root() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped("not root, so the kernel tests were left out; all others passed".to_owned()))
}

/// As `cargo xtask ebpf --check`, which installs below target/ what it lacks.
pub(super) fn kernel_object(context: &Context) -> Result<Outcome> {
    Ebpf::CHECK.run(&context.root)?;
    Ok(Outcome::Passed)
}

pub(super) fn benches(context: &Context) -> Result<Outcome> {
    // Checked, not built: an optimised build of the whole workspace would show nothing more.
    pass(cargo(&context.root).args(["check", "--locked", "--workspace", "--benches"]))?;
    Ok(Outcome::Passed)
}
