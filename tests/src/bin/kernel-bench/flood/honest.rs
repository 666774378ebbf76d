//! The honest client: calls on kept connections as fast as they are answered, and now and then a new connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::LoadError;
use gateway_tests::load::connection::{Connection, Request, Target};
use gateway_tests::load::process::fraction;
use gateway_tests::load::quantiles::Quantiles;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::schedule::Schedule;

/// Connections that are kept: enough to keep the gateway busy whatever a round trip takes.
const CONNECTIONS: usize = 64;
/// Between two new connections: ten a second, far less than any limit.
const BETWEEN_NEW: Duration = Duration::from_millis(100);
/// How long one may take. A SYN that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(800);

/// Whom to call, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Honest<'a> {
    pub(super) gateway: SocketAddr,
    pub(super) key: &'a str,
    pub(super) schedule: Schedule,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) unloaded: Answered,
    pub(super) flooded: Answered,
    /// Tried under the flood.
    pub(super) failed_connections: u64,
    pub(super) tried_connections: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) per_second: f64,
    pub(super) p99_us: f64,
}

/// Nanoseconds from question to answer of every call that counts.
#[derive(Debug, Default)]
struct Latencies {
    unloaded: Vec<u32>,
    flooded: Vec<u32>,
}

impl Honest<'_> {
    /// Every call on a kept connection must be answered with 200.
    pub(super) fn call(self) -> Result<Calls> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let target = Target::tls(self.gateway)?;
            let mut kept = Vec::new();
            for _ in 0..CONNECTIONS {
                kept.push(connect(&target).await?);
            }
            ensure!(Instant::now() < self.schedule.start(), "it took too long to connect");
            let request = Arc::new(Request::small(self.gateway, self.key));
            let mut callers = JoinSet::new();
            for connection in kept {
                callers.spawn(calls(connection, Arc::clone(&request), self.schedule));
            }
            let (failed_connections, tried_connections) = new_connections(&target, self.schedule).await;
            let mut all = Latencies::default();
            while let Some(done) = callers.join_next().await {
                let some = done??;
                all.unloaded.extend(some.unloaded);
                all.flooded.extend(some.flooded);
            }
            let seconds = self.schedule.counted_seconds();
            Ok(Calls {
                unloaded: Answered::of(all.unloaded, seconds)?,
                flooded: Answered::of(all.flooded, seconds)?,
                failed_connections,
                tried_connections,
            })
        })
    }
}

impl Answered {
    fn of(latencies: Vec<u32>, seconds: f64) -> Result<Self> {
        let quantiles = Quantiles::of(latencies)?;
        let count = fraction(u64::try_from(quantiles.samples)?, 1);
        Ok(Self { per_second: count / seconds, p99_us: quantiles.p99_us })
    }
}

/// Under a flood a SYN may be lost, and its like after it.
async fn connect(target: &Target) -> Result<Connection> {
    for _ in 0..20 {
        if let Ok(connected) = timeout(PATIENCE, target.connect()).await {
            return Ok(connected?);
        }
    }
    None.context("the honest client cannot connect")
}

async fn calls(
    mut connection: Connection,
    request: Arc<Request>,
    schedule: Schedule,
) -> Result<Latencies, LoadError> {
    let mut latencies = Latencies::default();
    loop {
        let asked = Instant::now();
        connection.call(request.bytes(), |_body, _arrived| ()).await?;
        let answered = Instant::now();
        if answered >= schedule.end() {
            return Ok(latencies);
        }
        let latency = u32::try_from((answered - asked).as_nanos()).unwrap_or(u32::MAX);
        match schedule.counted(answered) {
            Some(false) => latencies.unloaded.push(latency),
            Some(true) => latencies.flooded.push(latency),
            None => {}
        }
    }
}

/// How many could not be made in time under the flood, and how many were tried.
async fn new_connections(target: &Target, schedule: Schedule) -> (u64, u64) {
    let (mut failed, mut tried) = (0, 0);
    let mut pace = interval(BETWEEN_NEW);
    loop {
        let now = pace.tick().await.into_std();
        if now >= schedule.end() {
            return (failed, tried);
        }
        let flooded = schedule.counted(Instant::now()) == Some(true);
        let connected = timeout(PATIENCE, target.connect()).await;
        if flooded {
            tried += 1;
            failed += u64::from(!matches!(connected, Ok(Ok(_))));
        }
    }
}
