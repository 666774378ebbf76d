//! `cargo xtask run`: the gateway on this machine, in front of a simulated Azure or, with `--config`, of a real one.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::workspace::{self, Executables, Profile};

mod demo;
mod service;

/// What `cargo xtask run` is told on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Serve this configuration, against the Azure it names, instead of the demo
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The demo's port; 0 picks a free one
    #[arg(long, default_value_t = 8443, conflicts_with = "config")]
    port: u16,
    /// The port of the demo's metrics and status pages; 0 picks a free one
    #[arg(long, default_value_t = 9464, conflicts_with = "config")]
    admin_port: u16,
    /// Build as shipped: slower to build, faster to run
    #[arg(long)]
    release: bool,
}

/// Builds, starts, and stays until a signal or the end of a part.
///
/// # Errors
/// When something cannot be built or started, or a part ends without having been told to.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = workspace::root()?;
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    if let Some(config) = &args.config {
        let built = Executables::build(&root, &["gateway-user"], profile)?;
        // The gateway takes this process over: its words, its exit code and the terminal's Ctrl-C are its own.
        let failure =
            Command::new(built.path("aoai-gateway")?).args(["serve", "--config"]).arg(config).exec();
        return Err(failure).context("cannot start the gateway");
    }
    let built = Executables::build(&root, &["gateway-user", "gateway-tests"], profile)?;
    demo::run(&built, args.port, args.admin_port)
}
