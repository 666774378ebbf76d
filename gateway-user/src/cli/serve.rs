//! `aoai-gateway serve`: a stand-in.

use std::process::ExitCode;

use clap::Args;

use super::ConfigArg;

/// What to serve with.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// Serves calls.
#[must_use]
pub fn run(args: ServeArgs) -> ExitCode {
    drop(args);
    ExitCode::FAILURE
}
