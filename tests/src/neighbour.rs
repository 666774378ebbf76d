//! An honest tenant beside attackers: what its calls take, and what the gateway takes, quiet and under each attack.
//!
//! Each attack meets a fresh gateway, which has every core but the first. The honest callers have the first; the attackers and
//! the upstreams that only they call are other processes, behind everyone else on that core (`nice`), so that what they cost
//! themselves is neither the gateway's nor the honest callers' time. They come from other addresses of loopback than the
//! honest callers.

mod assault;
mod attack;
mod bodies;
mod connections;
mod frames;
mod honest;
mod unread;
mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::harness::{Config, Gateway, Site};
use crate::load::process::ProcessTree;
use crate::simulator::{Options, Simulator};
use assault::Attacker;
use attack::{ATTACKS, Attack};
use honest::Honest;
use upstreams::Upstreams;

pub use assault::Assault;
pub use honest::Figures;
pub use upstreams::serve as serve_upstreams;

/// What is measured.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// How long, for each attack.
    pub seconds: u64,
    /// The attacks, by name; all of them where there is none.
    pub only: Vec<String>,
    /// With the kernel programs on the loopback interface.
    pub kernel: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was planned.
    pub plan: Plan,
    /// The cores of the gateway; callers and attackers share another.
    pub cores: usize,
    /// Without an attack first, then under each.
    pub rows: Vec<Row>,
}

/// What the honest tenant got, and what the gateway took, under one attack.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The attack's name; `quiet` without one.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// What the honest callers and newcomers got.
    #[serde(flatten)]
    pub honest: Figures,
    /// What the attackers tried: calls, connections, or frames.
    pub tried: u64,
    /// Calls of others than the honest tenant that were answered 200.
    pub served: f64,
    /// Calls of others than the honest tenant that were refused.
    pub refused: f64,
    /// The most memory that the gateway had, in MiB.
    pub rss_mib: f64,
    /// CPU time of the gateway for each second.
    pub cores_used: f64,
}

/// Runs every attack, each on a gateway of its own.
///
/// # Errors
/// When a part does not start, an attack has no such name, or the gateway is gone afterwards.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    for name in &plan.only {
        let names = || ATTACKS.map(|attack| attack.name).join(", ");
        anyhow::ensure!(
            ATTACKS.iter().any(|attack| attack.name == name),
            "there is no attack {name}: {}",
            names()
        );
    }
    let (callers, gateways) = shares_of(&sched_getaffinity(None)?);
    sched_setaffinity(None, &callers)?;
    let azure = Simulator::start(Options { recorded: 0, fixed_answers: true, ..Options::default() })?;
    let upstreams = Upstreams::start()?;
    let config = config(&azure, &upstreams, plan.kernel)?;
    let wanted = |attack: &&Attack| plan.only.is_empty() || plan.only.iter().any(|name| name == attack.name);
    let mut rows = Vec::new();
    for attack in std::iter::once(None).chain(ATTACKS.iter().filter(wanted).map(Some)) {
        // A child has the cores of the thread that starts it.
        sched_setaffinity(None, &gateways)?;
        let name = attack.map_or("quiet", |attack| attack.name);
        let site = Site::new(&azure, &config)?;
        let honest = site.add_tenant("honest", Some("honest"))?.primary;
        let hostile =
            site.add_tenant("hostile", Some(attack.map_or("limited", |attack| attack.tier)))?.primary;
        let gateway = Arc::new(site.start()?);
        gateway.ready().await?;
        sched_setaffinity(None, &callers)?;
        let row = measure(&gateway, honest, &hostile, attack, Duration::from_secs(plan.seconds)).await;
        rows.push(row.map_err(|error| error.context(name))?);
    }
    Ok(Report { plan, cores: usize::try_from(gateways.count())?, rows })
}

async fn measure(
    gateway: &Arc<Gateway>,
    honest: String,
    hostile: &str,
    attack: Option<&Attack>,
    time: Duration,
) -> anyhow::Result<Row> {
    // What the first calls make is no part of what later ones take.
    Honest::new(gateway, &honest).run_for(WARM_UP).await?;
    let attacker = attack.map(|attack| Attacker::start(attack, gateway, hostile)).transpose()?;
    let process = ProcessTree::of(gateway.pid())?;
    let (used_before, started) = (process.cpu()?, Instant::now());
    let watched = Arc::clone(gateway);
    let memory = tokio::spawn(async move {
        let mut most = 0;
        while started.elapsed() < time {
            // A gateway that is gone is seen by its callers.
            most = most.max(watched.resident_bytes().unwrap_or_default());
            sleep(SAMPLE).await;
        }
        most
    });
    let figures = Honest::new(gateway, &honest).run_for(time).await?;
    let cores_used =
        (process.cpu()?.saturating_sub(used_before)).as_secs_f64() / started.elapsed().as_secs_f64();
    let tried = attacker.map(Attacker::stop).transpose()?.unwrap_or_default();
    let most = memory.await?;
    let metrics = gateway.metrics().await?;
    let calls = |labels: &[(&str, &str)]| metrics.sum("gateway_requests_total", labels);
    let others = |labels: &[(&str, &str)]| {
        let honest: Vec<_> = labels.iter().copied().chain([("tenant", "honest")]).collect();
        calls(labels) - calls(&honest)
    };
    let served = others(&[("status", "200")]);
    Ok(Row {
        name: attack.map_or("quiet", |attack| attack.name),
        what: attack.map_or("nobody else", |attack| attack.what),
        honest: figures,
        tried,
        served,
        refused: others(&[]) - served,
        rss_mib: f64::from(u32::try_from(most >> 10)?) / 1024.0,
        cores_used,
    })
}

/// The cores of the callers, the first one, and those of the gateway, all others. A single one is shared.
fn shares_of(all: &CpuSet) -> (CpuSet, CpuSet) {
    let (mut first, mut others) = (CpuSet::new(), *all);
    if let Some(core) = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)) {
        first.set(core);
        others.unset(core);
    }
    if others.count() == 0 {
        others = *all;
    }
    (first, others)
}

fn config(azure: &Simulator, upstreams: &Upstreams, kernel: bool) -> anyhow::Result<Config> {
    let mode = if kernel { "required" } else { "off" };
    Config::for_simulator(azure)?.with(&format!(
        r#"
        [listen]
        max_connections = {MOST_CONNECTIONS}
        [kernel]
        mode = "{mode}"
        interface = "lo"
        exempt = ["127.0.0.1/32"]
        [[backends]]
        name = "simulator"
        endpoint = "{}"
        [[backends]]
        name = "large"
        priority = 2
        endpoint = "http://{}"
        [[backends]]
        name = "endless"
        priority = 2
        endpoint = "http://{}"
        [deployments.large]
        model = "text-embedding-3-small"
        backends = ["large"]
        [deployments.endless]
        model = "gpt-4o-mini"
        backends = ["endless"]
        [tiers.honest]
        ceiling = "strict"
        [tiers.limited]
        calls_per_minute = 60
        tokens_per_minute = 150000
        [tiers.counted]
        tokens_per_minute = 150000
        [tiers.vast]
        tokens_per_minute = 4000000000
        ceiling = "soft"
        "#,
        azure.endpoint(),
        upstreams.large,
        upstreams.endless,
    ))
}

/// So few that an attack reaches them within seconds.
const MOST_CONNECTIONS: usize = 2_000;
const WARM_UP: Duration = Duration::from_secs(1);
const SAMPLE: Duration = Duration::from_millis(50);
