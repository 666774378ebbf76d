//! The thread that puts on the disk what has changed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::books::Changes;
use super::{Outage, Store};
use crate::gateway::Gateway;
use crate::ledger::{Pending, hour_of};
use crate::limits::Now;

/// From one checkpoint to the next. With the time that a commit takes, a crash loses less than a second.
const INTERVAL: Duration = Duration::from_millis(450);
/// Between two checkpoints that somebody waits for, so that refusals share them.
const HURRIED: Duration = Duration::from_millis(20);
/// Beyond this somebody is told that a crash would lose more than is promised.
const PROMISED: Duration = Duration::from_secs(1);
/// How often at most.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Between two attempts while the store is down.
const RETRY: Duration = Duration::from_secs(1);

/// A running writer; dropping it writes a last checkpoint, too.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
}

/// What the writer is told.
#[derive(Debug, Default)]
pub(super) struct Signal {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    hurry: bool,
    stop: bool,
}

struct Work {
    store: Arc<Store>,
    gateway: Arc<Gateway>,
    pending: Pending,
    /// When the last checkpoint was begun: what was used since belongs to that hour.
    hour: u64,
    /// When somebody was last told that the disk is slow.
    told: Option<Instant>,
}

impl Writer {
    /// Starts to write what the gateway counts into its store.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(store: &Arc<Store>, gateway: &Arc<Gateway>) -> io::Result<Self> {
        let mut work = Work {
            store: Arc::clone(store),
            gateway: Arc::clone(gateway),
            pending: Pending::default(),
            hour: hour_of(gateway.clock.now().utc_seconds),
            told: None,
        };
        gateway.metrics.store_kept_at_ms.store(gateway.clock.now().monotonic_ms, Ordering::Relaxed);
        gateway.metrics.store_up.set(1);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            give_way();
            work.run();
        })?;
        Ok(Self { store: Arc::clone(store), thread: Some(thread) })
    }

    /// Writes what is still to be written, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.store.signal.tell(|told| told.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Signal {
    pub(super) fn hurry(&self) {
        self.tell(|told| told.hurry = true);
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.changed.notify_one();
    }

    /// Waits until `latest`, or where somebody is in a hurry until `earliest`. Whether it is time to stop.
    fn wait(&self, earliest: Instant, latest: Instant) -> bool {
        let mut told = self.told.lock();
        loop {
            let until = if told.hurry { earliest } else { latest };
            if told.stop || Instant::now() >= until {
                break;
            }
            self.changed.wait_until(&mut told, until);
        }
        told.hurry = false;
        told.stop
    }
}

impl Work {
    fn run(&mut self) {
        let (mut earliest, mut latest) = (HURRIED, INTERVAL);
        let mut begun = Instant::now();
        loop {
            let stop = self.store.signal.wait(begun + earliest, begun + latest);
            begun = Instant::now();
            (earliest, latest) = if self.checkpoint() { (HURRIED, INTERVAL) } else { (RETRY, RETRY) };
            if stop {
                return;
            }
        }
    }

    /// Puts on the disk what has changed. What could not be written is written next time.
    fn checkpoint(&mut self) -> bool {
        let gateway = Arc::clone(&self.gateway);
        let store = Arc::clone(&self.store);
        let number = store.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let now = gateway.clock.now();
        // The ledger first: a call that is settled in between is missing there until the next checkpoint. The other way
        // round a crash would count it twice, as settled and as held.
        gateway.metrics.read_cost(|counters| self.pending.collect(self.hour, counters));
        self.hour = hour_of(now.utc_seconds);
        let mut accounts = Vec::new();
        gateway.each_account(|tenant, account| {
            if let Some(checkpoint) = account.checkpoint(now) {
                accounts.push((tenant.clone(), Arc::clone(account), checkpoint));
            }
        });
        if !accounts.is_empty() || !self.pending.is_empty() || store.outage.lock().is_some() {
            let mut changes = Changes { accounts: &accounts, pending: &mut self.pending, hour: self.hour };
            if let Err(error) = store.books.commit(&mut changes) {
                self.failed(&error.to_string(), now.utc_seconds);
                return false;
            }
            for (_, account, checkpoint) in &accounts {
                account.kept(checkpoint);
            }
            self.pending.written(self.hour);
            self.succeeded(now.utc_seconds);
            self.measure(now);
        }
        gateway.metrics.store_kept_at_ms.store(now.monotonic_ms, Ordering::Relaxed);
        store.done.send_replace(number);
        true
    }

    /// Notes how long a checkpoint took, which was begun at `begun` and has just been put on the disk.
    fn measure(&mut self, begun: Now) {
        let metrics = &self.gateway.metrics;
        let (done_ms, kept_at_ms) =
            (self.gateway.clock.now().monotonic_ms, metrics.store_kept_at_ms.load(Ordering::Relaxed));
        let since = |ms: u64| Duration::from_millis(done_ms.saturating_sub(ms));
        metrics.store_checkpoint.observe(since(begun.monotonic_ms).as_secs_f64());
        let at_risk = since(kept_at_ms);
        if at_risk > PROMISED && self.told.is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
            self.told = Some(Instant::now());
            tracing::warn!(
                seconds = at_risk.as_secs_f64(),
                "the disk is slow: a crash would have lost what was used in so many seconds"
            );
        }
    }

    fn failed(&self, problem: &str, utc_seconds: u64) {
        let mut outage = self.store.outage.lock();
        if outage.is_none() {
            self.gateway.metrics.store_up.set(0);
            tracing::error!(
                problem,
                "the store is down: budgets and the ledger are kept in memory until it is back"
            );
            *outage = Some(Outage { since: utc_seconds, problem: problem.to_owned() });
        }
    }

    fn succeeded(&self, utc_seconds: u64) {
        if let Some(outage) = self.store.outage.lock().take() {
            self.gateway.metrics.store_up.set(1);
            let seconds = utc_seconds.saturating_sub(outage.since);
            tracing::warn!(seconds, "the store is back, and has all that was counted meanwhile");
        }
    }
}

/// Lets the workers go first: a commit takes milliseconds, and a chunk that waits for one is late by as much.
fn give_way() {
    // On Linux, "this process" is this thread (setpriority(2), notes).
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        tracing::debug!(error = %error, "the store's thread keeps its priority");
    }
}

/// The nicest there is.
const LOWEST_PRIORITY: i32 = 19;
