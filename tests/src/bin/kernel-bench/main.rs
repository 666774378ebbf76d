//! What shedding costs: nanoseconds per packet, and an honest client's calls under a flood.
//!
//! Run by `cargo xtask bench kernel`, which builds it optimised. Prints tables, or one JSON document.

mod flood;
mod packets;
mod rules;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use gateway_tests::load::process::pin;
use serde::Serialize;

/// Measures the kernel programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measurements of each kind, of which the median counts.
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long an honest client's calls are measured with each flood and without, in seconds.
    #[arg(long, default_value = "2")]
    seconds: u64,
    /// Packets per second of the flood.
    #[arg(long, default_value = "100000")]
    flood_rate: u64,
    /// What to measure; everything unless given.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The XDP program alone.
    Packets,
    /// An honest client under a flood.
    Flood,
}

/// Where what runs.
#[derive(Debug, Clone, Copy)]
struct Cores {
    /// The honest client and the upstream.
    load: usize,
    /// The gateway and its network card.
    gateway: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    packets: Option<Vec<packets::Line>>,
    flood: Option<Vec<flood::Line>>,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "where results and errors of a command go")]
fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<String> {
    ensure!(arguments.rounds > 0 && arguments.seconds > 0, "--rounds and --seconds must be at least 1");
    let cores = Cores::choose()?;
    pin(None, cores.load)?;
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    let report = Report {
        packets: wanted(Part::Packets).then(|| packets::measure(arguments.rounds)).transpose()?,
        flood: wanted(Part::Flood).then(|| flood::measure(arguments, cores)).transpose()?,
    };
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&report)?);
    }
    let tables = [
        report.packets.as_deref().map(packets::table),
        report.flood.as_deref().map(|lines| flood::table(lines, arguments.flood_rate)),
    ];
    Ok(tables.into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

impl Cores {
    /// The first and the last that this process may use.
    fn choose() -> Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let cores: Vec<usize> =
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let [load, .., gateway] = *cores.as_slice() else {
            bail!("two cores are needed: one for the gateway, one for the load");
        };
        Ok(Self { load, gateway })
    }
}

/// The middle one.
fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}
