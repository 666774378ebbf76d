//! `cargo xtask bench runaway` runs this: one line of JSON on standard output says what the runaway agents came to.

use std::process::ExitCode;

use clap::Parser;
use gateway_tests::runaway::{Plan, run};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug, Parser)]
#[command(about = "Runaway agents against a budget")]
struct Arguments {
    /// Tokens per minute of each tenant
    #[arg(long, default_value_t = 20_000)]
    limit: u32,
    /// Agents of each runaway tenant
    #[arg(long, default_value_t = 200)]
    agents: u32,
    /// Callers of the honest tenant
    #[arg(long, default_value_t = 10)]
    honest_callers: u32,
    /// How long calls are made
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer and the error of a command")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { limit, agents, honest_callers, seconds } = Arguments::parse();
    match measure(Plan { limit, agents, honest_callers, seconds }).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("runaway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(plan: Plan) -> anyhow::Result<String> {
    raise_file_limit()?;
    Ok(serde_json::to_string(&run(plan).await?)?)
}

/// Hundreds of connections, in the gateway twice as many.
fn raise_file_limit() -> std::io::Result<()> {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
