//! Development tasks, one file each: `cargo xtask run`, `test`, `fuzz`, `bench`, `ebpf`.
//!
//! What a developer types is what CI runs, so the two cannot differ.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod ebpf;
mod fuzz;
mod run;
mod test;
mod workspace;

/// Development tasks of aoai-gateway.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start the gateway: with a simulated Azure and a demo tenant, or against a real one with --config
    Run(run::Args),
    /// Run everything that must pass, and say at the end what did
    Test(test::Args),
    /// Look for bytes from outside that the gateway cannot take, with libFuzzer
    Fuzz(fuzz::Fuzz),
    /// Measure the gateway beside nginx as a plain TLS reverse proxy, on the same core, in the same run
    Bench(bench::BenchArgs),
    /// Rebuild the kernel object from its sources, or compare it with them
    Ebpf(ebpf::Ebpf),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Fuzz(args) => workspace::root().and_then(|root| args.run(&root)).map(|()| ExitCode::SUCCESS),
        Task::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Ebpf(args) => workspace::root().and_then(|root| args.run(&root)).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
