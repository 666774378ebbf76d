//! Development tasks.

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
    Ebpf(ebpf::Ebpf),
}

fn main() -> ExitCode {
    let root = root();
    let result = match Tasks::parse().task {
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
