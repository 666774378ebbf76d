//! Calls at a fixed pace, whatever the answers do (open loop), for the latency of a proxy that is not busy.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::load::LoadError;
use crate::load::connection::{Connection, Request, Target};
use crate::load::quantiles::Quantiles;

/// Sends `calls` calls, one every `interval`, in turn over [`CONNECTIONS`] connections.
///
/// A call's latency runs from when it was sent to the last byte of its answer. If the answer before it on its
/// connection is late, it runs from when the call was due, so that a stall is not hidden by the calls it kept back.
///
/// # Errors
///
/// The first call's error.
pub async fn run(target: &Target, key: &str, interval: Duration, calls: u32) -> Result<Quantiles, LoadError> {
    let request = Arc::new(Request::small(target.address(), key));
    let mut callers = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = target.connect().await?;
        for _ in 0..WARM_UP_CALLS {
            connection.call(request.bytes(), |_body, _arrived| ()).await?;
        }
        connections.push(connection);
    }
    let start = Instant::now() + interval;
    for (first, connection) in (0..CONNECTIONS).zip(connections) {
        let slots = Slots { start, interval, next: first, end: calls };
        callers.spawn(caller(connection, Arc::clone(&request), slots));
    }
    let mut samples = Vec::new();
    while let Some(ended) = callers.join_next().await {
        samples.extend(ended.unwrap_or_else(|panic| Err(LoadError::Io(std::io::Error::other(panic))))?);
    }
    Quantiles::of(samples)
}

/// The calls that are due on one connection.
struct Slots {
    start: Instant,
    interval: Duration,
    next: u32,
    end: u32,
}

impl Iterator for Slots {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        let slot = self.next;
        self.next += CONNECTIONS;
        (slot < self.end).then(|| self.start + self.interval * slot)
    }
}

async fn caller(
    mut connection: Connection,
    request: Arc<Request>,
    slots: Slots,
) -> Result<Vec<u32>, LoadError> {
    let mut samples = Vec::new();
    for due in slots {
        let sent = if Instant::now() < due {
            sleep_until(due).await;
            Instant::now()
        } else {
            due
        };
        connection.call(request.bytes(), |_body, _arrived| ()).await?;
        samples.push(u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    Ok(samples)
}

const CONNECTIONS: u32 = 8;
const WARM_UP_CALLS: usize = 50;
