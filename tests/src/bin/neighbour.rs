//! `cargo xtask bench neighbour` runs this: one line of JSON on standard output says what an honest tenant got, quiet and
//! beside each attack. It starts itself once more for each attack.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gateway_tests::neighbour::{Assault, Plan, run, serve_upstreams};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug, Parser)]
#[command(about = "An honest tenant beside attackers", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How long each attack is measured
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only these attacks, by name
    #[arg(long)]
    only: Vec<String>,
    /// With the kernel programs, attached to the loopback interface; takes root
    #[arg(long)]
    kernel: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Attack, until standard input ends
    #[command(hide = true)]
    Attack(Assault),
    /// Serve what attackers ask for, until standard input ends
    #[command(hide = true)]
    Upstreams,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer and the error of a command")]
fn main() -> ExitCode {
    match measure(Arguments::parse()) {
        Ok(report) => {
            if let Some(report) = report {
                println!("{report}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("neighbour: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> anyhow::Result<Option<String>> {
    raise_file_limit()?;
    let Arguments { part, seconds, only, kernel } = arguments;
    match part {
        Some(Part::Attack(assault)) => return Ok(Some(assault.run()?.to_string())),
        Some(Part::Upstreams) => return serve_upstreams().map(|()| None),
        None => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(Plan { seconds, only, kernel }))?;
    Ok(Some(serde_json::to_string(&report)?))
}

/// Thousands of connections.
fn raise_file_limit() -> std::io::Result<()> {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
