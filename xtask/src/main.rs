//! Development tasks.

use anyhow::Result;
use clap::Parser;

mod bench;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks")]
enum Task {
    /// Compare the gateway with nginx as a plain TLS reverse proxy
    Bench(bench::BenchArgs),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args),
    }
}
