//! `cargo xtask bench`: the gateway with everything on, side by side with nginx as a plain TLS reverse proxy.
//!
//! The proxy has one core to itself; the load generator and a canned upstream share another. Every measurement is
//! taken in rounds that alternate between the proxies, each time freshly started, and the medians are compared.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use self::measure::{Effort, Measure};
use self::process::{Cores, Pinned};
use self::proxy::{Proxy, Side};
use self::report::Report;

mod fleet;
mod gateway;
mod kernel;
mod measure;
mod neighbour;
mod nginx;
mod process;
mod proxy;
mod report;
mod runaway;

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Rounds of each measurement, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measure only one of the two
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// What to measure, by name or letter; everything unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    measure: Vec<Measure>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// One short round: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Core of the proxy; the last one this process may use unless given
    #[arg(long)]
    proxy_core: Option<usize>,
    /// Core of the load generator and the upstream; the first one unless given
    #[arg(long)]
    load_core: Option<usize>,
    /// Run a second nginx in the gateway's place, to see how far equal things differ
    #[arg(long, hide = true)]
    stand_in: bool,
}

/// What is measured instead of speed.
#[derive(Debug, Subcommand)]
enum What {
    /// Let agents run away against a budget, and count what was really generated
    Runaway(runaway::RunawayArgs),
    /// Measure what an honest tenant gets beside attackers, and what the gateway takes
    Neighbour(neighbour::NeighbourArgs),
    /// Measure what shedding in the kernel costs, and what it is worth to an honest client under a flood
    Kernel(kernel::KernelArgs),
    /// Measure what budgets shared through Redis add to a call's latency
    Fleet(fleet::FleetArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the benchmark and prints its result; progress goes to standard error.
///
/// # Errors
///
/// When something is missing, does not build or start, or when a call of the benchmark is not answered with 200.
#[expect(clippy::print_stdout, reason = "the result of the command")]
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.what {
        Some(What::Runaway(args)) => return runaway::run(args),
        Some(What::Neighbour(args)) => return neighbour::run(args),
        Some(What::Kernel(args)) => return kernel::run(args),
        Some(What::Fleet(args)) => return fleet::run(args),
        None => {}
    }
    let sides = args.only.map_or_else(|| vec![Side::Nginx, Side::Gateway], |side| vec![side]);
    let site = Site::prepare(args, &sides)?;
    let _upstream = site.start_upstream()?;
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let rounds = if args.quick { 1 } else { args.rounds };
    let measures = if args.measure.is_empty() { Measure::value_variants() } else { &args.measure };

    let mut report = Report::new(rounds, site.machine()?);
    for &measure in measures {
        for round in 1..=rounds {
            measure.run_round(&site, &sides, effort, &mut report).with_context(|| {
                format!("{measure:?}, round {round}; the logs are in {}", site.directory.display())
            })?;
        }
    }
    match args.format {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

/// The place of one benchmark: its files, programs, cores and upstream.
#[derive(Debug)]
struct Site {
    directory: PathBuf,
    load: PathBuf,
    gateway: PathBuf,
    cores: Cores,
    upstream: SocketAddr,
    stand_in: bool,
}

impl Site {
    fn prepare(args: &BenchArgs, sides: &[Side]) -> Result<Self> {
        let gateway_runs = sides.contains(&Side::Gateway) && !args.stand_in;
        if sides.contains(&Side::Nginx) || args.stand_in {
            nginx::ensure_installed()?;
        }
        Self::at(Cores::choose(args.proxy_core, args.load_core)?, gateway_runs, args.stand_in)
    }

    fn at(cores: Cores, gateway_runs: bool, stand_in: bool) -> Result<Self> {
        let release = build("bench-load", gateway_runs)?;
        let target = release.parent().unwrap_or(&release);
        let directory = target.join("bench");
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("clearing {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let site = Self {
            load: release.join("bench-load"),
            gateway: release.join("aoai-gateway"),
            directory,
            cores,
            upstream: free_address()?,
            stand_in,
        };
        let directory = site.directory.to_string_lossy().into_owned();
        site.load(&["certificate".to_owned(), directory])?;
        Ok(site)
    }

    fn start_upstream(&self) -> Result<Pinned> {
        let mut command = Command::new(&self.load);
        command.arg("upstream").arg(self.upstream.to_string());
        let mut upstream = Pinned::spawn(&command, self.cores.load, &self.directory.join("upstream.log"))?;
        upstream.wait_for(self.upstream)?;
        Ok(upstream)
    }

    /// Runs the load generator on its core and returns what it printed.
    fn load(&self, arguments: &[String]) -> Result<Value> {
        let mut command = Command::new(&self.load);
        command.args(arguments);
        let output = process::pinned(&command, self.cores.load).output().context("starting bench-load")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("reading what bench-load measured")
    }

    fn start(&self, side: Side) -> Result<Proxy> {
        match side {
            Side::Gateway if !self.stand_in => gateway::start(self, OWN_STORE),
            Side::Gateway | Side::Nginx => nginx::start(self),
        }
    }

    fn machine(&self) -> Result<Value> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let kernel =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
        Ok(serde_json::json!({
            "cpu": model.trim_start_matches([' ', '\t', ':']),
            "kernel": kernel.trim(),
            "nginx": nginx::version().unwrap_or_else(|| "none".to_owned()),
            "proxy_core": self.cores.proxy,
            "load_core": self.cores.load,
        }))
    }
}

/// Builds what is measured and what measures, and returns the directory of the programs.
fn build(measures: &str, gateway: bool) -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "gateway-tests", "--bin", measures]);
    if gateway {
        cargo.args(["--package", "gateway-user", "--bin", "aoai-gateway"]);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
    let status = cargo.current_dir(root).status().context("starting cargo")?;
    if !status.success() {
        bail!("the release build has errors");
    }
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join("release"))
}

/// Builds and runs a program of the tests' that measures a gateway by itself; gives the JSON that it prints.
fn measured(program: &str, arguments: &[&str]) -> Result<Value> {
    let release = build(program, true)?;
    let output = Command::new(release.join(program))
        .args(arguments)
        .env("AOAI_GATEWAY_BIN", release.join("aoai-gateway"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program} did not come to its end: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading what {program} measured"))
}

/// A store that the gateway has to itself.
const OWN_STORE: &str = "file:state";

/// An address on loopback that nothing listens on at the moment.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}
