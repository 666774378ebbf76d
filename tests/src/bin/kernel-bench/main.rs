//! What shedding costs: nanoseconds per packet, and an honest client's calls under a flood.
//!
//! Run by `cargo xtask bench kernel`, which builds it optimised. Prints one JSON document.

mod flood;
mod packets;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

/// Measures the kernel programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measurements of each kind, of which the median counts.
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long each flood lasts.
    #[arg(long, default_value = "2")]
    seconds: u64,
    /// Packets per second of the flood.
    #[arg(long, default_value = "100000")]
    flood_rate: u64,
    /// Leave out the flood.
    #[arg(long)]
    packets_only: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "where results and errors of a command go")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = packets::measure(arguments.rounds).and_then(|packets| {
        let flood = if arguments.packets_only { None } else { Some(flood::measure(&arguments)?) };
        Ok(json!({ "packets": packets, "flood": flood }))
    });
    match measured {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The middle one.
fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}
