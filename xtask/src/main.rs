//! Development tasks.

mod bench_kernel;
mod ebpf;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What `cargo xtask` does.
#[derive(Debug, Parser)]
struct Tasks {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    BenchKernel(bench_kernel::BenchKernel),
    Ebpf(ebpf::Ebpf),
}

fn main() -> ExitCode {
    let root = root();
    let result = match Tasks::parse().task {
        Task::BenchKernel(task) => task.run(&root),
        Task::Ebpf(task) => task.run(&root),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "where errors of a command go")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
