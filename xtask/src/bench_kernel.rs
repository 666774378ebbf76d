//! `cargo xtask bench kernel`: what shedding costs, in nanoseconds and in an honest client's calls.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

/// Measures the kernel programs; takes root.
#[derive(Debug, Args)]
pub(crate) struct BenchKernel {
    /// What is handed to the measuring program: `--rounds`, `--seconds`, `--flood-rate`, `--packets-only`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl BenchKernel {
    /// Builds the measuring program optimised and runs it; its JSON goes to standard output.
    ///
    /// # Errors
    /// When it cannot be built, or does not succeed.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        let mut build = Command::new("cargo");
        build.args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "gateway-tests",
            "--bin",
            "kernel-bench",
            "--bin",
            "shedder",
        ]);
        let built = build.current_dir(root).status().context("cannot run cargo")?;
        ensure!(built.success(), "the build ended with {built}");
        let program = root.join("target/release/kernel-bench");
        let status = Command::new(&program)
            .args(&self.arguments)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(status.success(), "the measurement ended with {status}");
        Ok(())
    }
}
