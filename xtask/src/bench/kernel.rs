//! `cargo xtask bench kernel`: what shedding costs, in nanoseconds and in an honest client's calls.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::apt;
use crate::test::on_path;
use crate::workspace::{Executables, Profile, root};

/// Options of `cargo xtask bench kernel`; takes root.
#[derive(Debug, Args)]
pub(super) struct KernelArgs {
    /// What is handed to the measuring program: `--rounds`, `--seconds`, `--flood-rate`, `--only`, `--json`; see `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the gateway and the measuring program optimised and runs that; its tables go to standard output.
///
/// # Errors
///
/// When it cannot be built, or does not succeed.
pub(super) fn run(args: &KernelArgs) -> Result<()> {
    install_missing()?;
    let executables = Executables::build(&root()?, &["gateway-tests", "gateway-user"], Profile::Release)?;
    let program = executables.path("kernel-bench")?;
    let status = Command::new(program)
        .args(&args.arguments)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}

/// Installs what the measurement runs and this machine lacks.
fn install_missing() -> Result<()> {
    let missing = NEEDED.iter().filter(|(executable, _)| on_path(executable).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    apt::install(&packages)
        .with_context(|| format!("something is missing: apt-get install {}", packages.join(" ")))
}

/// Executables, and the Debian packages that have them.
const NEEDED: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("iptables", "iptables")];
