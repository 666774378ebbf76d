//! The `aoai-gateway` command.

use std::process::ExitCode;

use clap::Parser as _;
use gateway_user::cli::Cli;

// A call makes some forty small allocations, all on its worker's thread and most of them freed there: measured, this
// takes less time and no more memory for them than the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
