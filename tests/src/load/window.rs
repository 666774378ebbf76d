//! A window of time in which something is counted, and what it cost the proxy and both cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::LoadError;
use crate::load::process::{CoreTimes, ProcessTree, fraction};

/// Whom to watch while counting.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The proxy.
    pub proxy: ProcessTree,
    /// The core that is the proxy's alone.
    pub proxy_core: usize,
    /// The core of the load generator and the upstream.
    pub load_core: usize,
}

/// What was done in the window, and at what cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Throughput {
    /// Things done: calls, connections.
    pub count: u64,
    /// Things done in a second.
    pub per_second: f64,
    /// The proxy's CPU time for one thing, in microseconds.
    pub proxy_cpu_us: f64,
    /// The proxy's CPU time as a share of the window, 0 to 1.
    pub proxy_busy: f64,
    /// The share of the window in which the proxy's core worked, for the proxy or for anybody else.
    pub proxy_core_busy: f64,
    /// The share of the window in which the load's core worked.
    pub load_core_busy: f64,
}

/// How long to run before counting, and how long to count.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub counted: Duration,
}

impl Window {
    /// Counts what `workers` add to `counter` during the window, then stops them. Workers end only by an error.
    ///
    /// # Errors
    ///
    /// The first worker's error, or [`LoadError::NoSamples`] when nothing was counted.
    pub async fn count(
        self,
        watch: &Watch,
        counter: Arc<AtomicU64>,
        mut workers: JoinSet<Result<(), LoadError>>,
    ) -> Result<Throughput, LoadError> {
        run_for(self.warm_up, &mut workers).await?;
        let before = Snapshot::take(watch, &counter)?;
        run_for(self.counted, &mut workers).await?;
        let after = Snapshot::take(watch, &counter)?;
        workers.shutdown().await;
        after.since(&before)
    }
}

async fn run_for(duration: Duration, workers: &mut JoinSet<Result<(), LoadError>>) -> Result<(), LoadError> {
    tokio::select! {
        biased;
        Some(ended) = workers.join_next() => ended.unwrap_or_else(|panic| Err(LoadError::Io(std::io::Error::other(panic)))),
        () = sleep(duration) => Ok(()),
    }
}

struct Snapshot {
    count: u64,
    proxy_cpu: Duration,
    proxy_core: CoreTimes,
    load_core: CoreTimes,
    at: Instant,
}

impl Snapshot {
    fn take(watch: &Watch, counter: &AtomicU64) -> Result<Self, LoadError> {
        Ok(Self {
            count: counter.load(Ordering::Relaxed),
            proxy_cpu: watch.proxy.cpu()?,
            proxy_core: CoreTimes::of(watch.proxy_core)?,
            load_core: CoreTimes::of(watch.load_core)?,
            at: Instant::now(),
        })
    }

    fn since(&self, before: &Self) -> Result<Throughput, LoadError> {
        let count = self.count - before.count;
        if count == 0 {
            return Err(LoadError::NoSamples);
        }
        let seconds = (self.at - before.at).as_secs_f64();
        let cpu = self.proxy_cpu.saturating_sub(before.proxy_cpu).as_secs_f64();
        Ok(Throughput {
            count,
            per_second: fraction(count, 1) / seconds,
            proxy_cpu_us: cpu * 1e6 / fraction(count, 1),
            proxy_busy: cpu / seconds,
            proxy_core_busy: self.proxy_core.busy_since(&before.proxy_core),
            load_core_busy: self.load_core.busy_since(&before.load_core),
        })
    }
}
