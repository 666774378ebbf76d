//! placeholder
use clap::Args;
use std::process::ExitCode;
/// x
#[derive(Debug, Args)]
pub struct SmokeArgs {
    /// x
    #[arg(long)]
    pub url: String,
}
/// x
#[must_use]
pub fn run(_args: SmokeArgs) -> ExitCode {
    ExitCode::FAILURE
}
