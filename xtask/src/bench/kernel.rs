//! `cargo xtask bench kernel`: what shedding costs, in nanoseconds and in an honest client's calls.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::workspace::{Executables, Profile, root};

/// Options of `cargo xtask bench kernel`; takes root.
#[derive(Debug, Args)]
pub(super) struct KernelArgs {
    /// What is handed to the measuring program: `--rounds`, `--seconds`, `--flood-rate`, `--packets-only`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the measuring program optimised and runs it; its JSON goes to standard output.
///
/// # Errors
///
/// When it cannot be built, or does not succeed.
pub(super) fn run(args: &KernelArgs) -> Result<()> {
    let executables = Executables::build(&root()?, &["gateway-tests"], Profile::Release)?;
    let program = executables.path("kernel-bench")?;
    let status = Command::new(program)
        .args(&args.arguments)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
