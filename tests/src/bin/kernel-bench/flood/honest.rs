//! The honest client: calls on kept connections as fast as they are answered, and now and then a new connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gateway_tests::load::LoadError;
use gateway_tests::load::connection::{Connection, Request, Target};
use gateway_tests::load::process::fraction;
use gateway_tests::load::quantiles::Quantiles;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

/// Connections that are kept.
const CONNECTIONS: usize = 16;
/// Between two new connections: ten a second, far less than any limit.
const BETWEEN_NEW: Duration = Duration::from_millis(100);
/// How long one may take. A SYN that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(800);

/// Whom to call, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Honest<'a> {
    pub(super) gateway: SocketAddr,
    pub(super) key: &'a str,
    /// Not counted.
    pub(super) warm_up: Duration,
    /// Counted.
    pub(super) time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) per_second: f64,
    pub(super) p99_us: f64,
    pub(super) failed_connections: u64,
    pub(super) tried_connections: u64,
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
            let request = Arc::new(Request::small(self.gateway, self.key));
            let from = Instant::now() + self.warm_up;
            let until = from + self.time;
            let mut callers = JoinSet::new();
            for connection in kept {
                callers.spawn(calls(connection, Arc::clone(&request), from, until));
            }
            let (failed_connections, tried_connections) = new_connections(&target, from, until).await;
            let mut latencies = Vec::new();
            while let Some(done) = callers.join_next().await {
                latencies.extend(done??);
            }
            let quantiles = Quantiles::of(latencies)?;
            Ok(Calls {
                per_second: fraction(u64::try_from(quantiles.samples)?, 1) / self.time.as_secs_f64(),
                p99_us: quantiles.p99_us,
                failed_connections,
                tried_connections,
            })
        })
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

/// Nanoseconds from question to answer of every call that ended in time.
async fn calls(
    mut connection: Connection,
    request: Arc<Request>,
    from: Instant,
    until: Instant,
) -> Result<Vec<u32>, LoadError> {
    let mut latencies = Vec::new();
    loop {
        let asked = Instant::now();
        connection.call(request.bytes(), |_body| ()).await?;
        let answered = Instant::now();
        if answered >= until {
            return Ok(latencies);
        }
        if answered >= from {
            latencies.push(u32::try_from((answered - asked).as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// How many could not be made in time, and how many were tried.
async fn new_connections(target: &Target, from: Instant, until: Instant) -> (u64, u64) {
    let (mut failed, mut tried) = (0, 0);
    let mut pace = interval(BETWEEN_NEW);
    loop {
        let now = pace.tick().await;
        if now >= until {
            return (failed, tried);
        }
        let connected = timeout(PATIENCE, target.connect()).await;
        if now >= from {
            tried += 1;
            failed += u64::from(!matches!(connected, Ok(Ok(_))));
        }
    }
}
