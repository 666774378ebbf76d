//! `cargo xtask bench fleet`: what a budget shared through Redis adds to a call's latency, beside one kept on the node.
//!
//! The two alternate on the same core and are asked at the same pace, each freshly started. What the upstream takes without
//! a gateway is subtracted, and the medians over the rounds are compared.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};

use super::measure::{Effort, Measure, number, progress};
use super::process::{Cores, Pinned};
use super::{Format, OWN_STORE, Site, free_address, gateway};

/// Options of `cargo xtask bench fleet`.
#[derive(Debug, Args)]
pub(super) struct FleetArgs {
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// One short round: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
}

/// Added latency in every round, in microseconds.
#[derive(Debug, Default)]
struct Added {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures both stores and prints the table; progress goes to standard error.
///
/// # Errors
///
/// When something is missing (`redis-server` among it), does not build or start, or a call is not answered with 200.
#[expect(clippy::print_stdout, reason = "the result of the command")]
pub(super) fn run(args: &FleetArgs) -> Result<()> {
    let site = Site::at(Cores::choose(None, None)?, true, false)?;
    let _upstream = site.start_upstream()?;
    let (_redis, shared) = start_redis(&site)?;
    let (effort, rounds) = if args.quick { (Effort::QUICK, 1) } else { (Effort::FULL, args.rounds) };
    let mut stores = [("own", OWN_STORE, Added::default()), ("redis", shared.as_str(), Added::default())];
    for round in 1..=rounds {
        let (direct_p50, direct_p99) = Measure::Latency.direct(&site, effort)?;
        for (name, url, added) in &mut stores {
            let proxy = gateway::start(&site, url)?;
            let answer = site
                .load(&Measure::Latency.arguments(&site, &proxy, effort))
                .with_context(|| format!("store {name}, round {round}"))?;
            progress(&format!("round {round}, store {name}: {answer}"));
            added.p50.push(number(&answer, "p50_us")? - direct_p50);
            added.p99.push(number(&answer, "p99_us")? - direct_p99);
        }
    }
    let rows = stores.map(|(name, _, added)| (name, median(added.p50), median(added.p99)));
    match args.format {
        Format::Table => print!("{}", table(&rows, rounds)),
        Format::Json => println!("{:#}", document(&rows, rounds, &site.machine()?)),
    }
    Ok(())
}

/// A server that keeps nothing on disk, on the load's core, and its URL.
fn start_redis(site: &Site) -> Result<(Pinned, String)> {
    let address = free_address()?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]);
    let mut redis = Pinned::spawn(&command, site.cores.load, &site.directory.join("redis.log"))?;
    redis.wait_for(address).context("is redis-server installed (Debian package redis-server)?")?;
    Ok((redis, format!("redis://{address}/0")))
}

fn table(rows: &[(&str, f64, f64)], rounds: u32) -> String {
    let mut text = format!("latency added to paced calls, µs; medians of {rounds} rounds\n\n");
    text.push_str(&format!("{:<8}{:>10}{:>10}\n", "store", "p50", "p99"));
    for (name, p50, p99) in rows {
        text.push_str(&format!("{name:<8}{p50:>10.0}{p99:>10.0}\n"));
    }
    text
}

fn document(rows: &[(&str, f64, f64)], rounds: u32, machine: &Value) -> Value {
    let stores: serde_json::Map<_, _> = rows
        .iter()
        .map(|(name, p50, p99)| {
            ((*name).to_owned(), json!({"added_latency_p50_us": p50, "added_latency_p99_us": p99}))
        })
        .collect();
    json!({"rounds": rounds, "machine": machine, "stores": stores})
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_does_not_decide() {
        assert!((median(vec![900.0, 2.0, 1.0]) - 2.0).abs() < f64::EPSILON);
    }
}
