//! `aoai-gateway kernel …`: whom the running gateway sheds, asked at its admin address.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::ask::Admin;
use super::{ConfigArg, Failure, Format, table};
use crate::admin::kernel::{RELEASE, STATUS, parse_source};
use crate::config::Config;

/// What to ask of the shedding.
#[derive(Debug, Args)]
pub struct KernelArgs {
    /// The configuration, which names the admin address.
    #[command(flatten)]
    pub config: ConfigArg,
    /// What to do.
    #[command(subcommand)]
    pub command: KernelCommand,
}

/// What can be asked of the shedding.
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// Show where the programs are attached, the limits, the counters, and the sources that stand out
    Status {
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Lift a source's penalty and forgive what led to it
    Release {
        /// An address, or an IPv6 /64
        #[arg(value_parser = source)]
        source: IpAddr,
    },
}

fn source(text: &str) -> Result<IpAddr, String> {
    parse_source(text).ok_or_else(|| "must be an address, or an IPv6 /64".to_owned())
}

pub(super) fn run(args: KernelArgs, out: &mut impl Write) -> Result<(), Failure> {
    let KernelArgs { config: ConfigArg { path }, command } = args;
    let admin = Admin::at(Config::load(&path)?.admin.address);
    match command {
        KernelCommand::Status { format } => {
            let answer = admin.get(STATUS)?;
            match format {
                Format::Json => Ok(writeln!(out, "{answer:#}")?),
                Format::Table => {
                    let state = serde_json::from_value(answer);
                    let state = state.map_err(|_other: serde_json::Error| admin.foreign())?;
                    Ok(show(&state, out)?)
                }
            }
        }
        KernelCommand::Release { source } => {
            let answer = admin.post(&format!("{RELEASE}?source={source}"), None::<&()>)?;
            let said = if answer.get("released") == Some(&Value::Bool(true)) {
                "is released"
            } else {
                "is under no penalty"
            };
            Ok(writeln!(out, "{source} {said}")?)
        }
    }
}

/// The page at [`STATUS`], as far as people are shown it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    mode: String,
    attached: Option<Attached>,
    absent_because: Option<String>,
    limits: Limits,
    packets: BTreeMap<String, u64>,
    sources: BTreeMap<String, u64>,
    top: Vec<Source>,
}

#[derive(Debug, Deserialize)]
struct Attached {
    interfaces: Vec<Interface>,
    cgroup: String,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    connections_per_second: u32,
    connection_burst: u32,
    concurrent_connections: u32,
    calls_per_second: u32,
    call_burst: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    source: String,
    connections: u64,
    over_rate: bool,
    penalty_seconds: Option<f64>,
}

fn show(state: &State, out: &mut impl Write) -> std::io::Result<()> {
    let State { mode, attached, absent_because, limits, packets, sources, top } = state;
    let attached = match (attached, absent_because) {
        (Some(Attached { interfaces, cgroup }), _) => {
            let on = interfaces.iter().map(|interface| format!("{} ({})", interface.name, interface.mode));
            format!("{}, control group {cgroup}", on.collect::<Vec<_>>().join(", "))
        }
        (None, Some(because)) => format!("no: {because}"),
        (None, None) => "no".to_owned(),
    };
    let Limits {
        connections_per_second,
        connection_burst,
        concurrent_connections,
        calls_per_second,
        call_burst,
    } = limits;
    writeln!(out, "mode         {mode}")?;
    writeln!(out, "attached     {attached}")?;
    writeln!(
        out,
        "connections  {connections_per_second} a second, {connection_burst} at once, {concurrent_connections} open"
    )?;
    writeln!(out, "calls        {calls_per_second} a second, {call_burst} at once")?;
    let counts: Vec<_> = sources.iter().map(|(state, count)| format!("{count} {}", words(state))).collect();
    writeln!(out, "sources      {}\n", counts.join(", "))?;
    let rows: Vec<_> = packets.iter().map(|(verdict, count)| [verdict.clone(), count.to_string()]).collect();
    table::write(out, ["VERDICT", "PACKETS"], &rows)?;
    if top.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rows: Vec<_> = top
        .iter()
        .map(|Source { source, connections, over_rate, penalty_seconds }| {
            let rate = if *over_rate { "over" } else { "-" };
            let penalty = penalty_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
            [source.clone(), connections.to_string(), rate.to_owned(), penalty]
        })
        .collect();
    table::write(out, ["SOURCE", "CONNECTIONS", "RATE", "PENALTY LEFT"], &rows)
}

/// A key of the page as people write it.
fn words(key: &str) -> &str {
    match key {
        "overRate" => "over their connection rate",
        "penalised" => "under penalty",
        other => other,
    }
}
