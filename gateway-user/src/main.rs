//! The `aoai-gateway` command.

use std::process::ExitCode;

use clap::Parser as _;
use gateway_user::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
