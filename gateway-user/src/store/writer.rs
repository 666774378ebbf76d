//! The threads that keep what has changed: one takes it twice a second, the other waits for the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::books::Changes;
use super::signal::{Due, Event};
use super::{Outage, Store, StoreError};
use crate::gateway::Gateway;
use crate::ledger::{ADJUSTMENTS_AT_ONCE, Pending, hour_of};
use crate::limits::{Account, Checkpoint, Now};
use crate::names::TenantName;
use crate::supervise::{Supervisor, fault};

/// From one checkpoint to the next: with `PATIENCE`, what a killed process may lose at most.
const INTERVAL: Duration = Duration::from_millis(450);
/// How long a commit may take before the journal has to help.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two checkpoints that somebody waits for, so that refusals share them.
const HURRIED: Duration = Duration::from_millis(20);
/// Beyond this somebody is told that the disk is slow.
const SLOW: Duration = Duration::from_secs(1);
/// How often at most.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// How often it is looked for removed tenants of which nothing has to be kept.
const OVER_INTERVAL_MS: u64 = 10_000;
/// Between two attempts while the store is down.
const RETRY: Duration = Duration::from_secs(1);

/// A running writer; dropping it writes a last checkpoint, too.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    threads: Vec<JoinHandle<()>>,
}

struct Work {
    store: Arc<Store>,
    gateway: Arc<Gateway>,
    pending: Pending,
    /// When the last checkpoint was begun: what was used since belongs to that hour.
    hour: u64,
    /// To the thread that waits for the disk, which has one commit at a time.
    committer: SyncSender<Arc<Changes>>,
    committing: Option<Commit>,
    /// How many files the store had been when it was last written.
    files: u64,
    /// When somebody was last told that the disk is slow.
    told: Option<Instant>,
    look_for_over_at_ms: u64,
}

/// A commit under way.
struct Commit {
    changes: Arc<Changes>,
    begun: Now,
    /// When its changes go into the journal, if it has not ended by then and they are not there yet.
    late: Option<Instant>,
}

impl Writer {
    /// Starts to write what the gateway counts into its store.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(store: &Arc<Store>, gateway: &Arc<Gateway>, supervisor: &Supervisor) -> io::Result<Self> {
        let (committer, commits) = sync_channel(1);
        let now = gateway.clock.now();
        let mut work = Work {
            store: Arc::clone(store),
            gateway: Arc::clone(gateway),
            pending: Pending::default(),
            hour: hour_of(now.utc_seconds),
            committer,
            committing: None,
            files: store.books.files(),
            told: None,
            look_for_over_at_ms: 0,
        };
        gateway.metrics.store_kept_at_ms.store(now.monotonic_ms, Ordering::Relaxed);
        gateway.metrics.store_on_disk_at_ms.store(now.monotonic_ms, Ordering::Relaxed);
        gateway.metrics.store_up.set(i64::from(store.outage.lock().is_none()));
        let mut writer = Self { store: Arc::clone(store), threads: Vec::new() };
        let disk = Arc::clone(store);
        // The other's end is this one's: it drops the sender.
        writer.threads.push(supervisor.thread("store", move || work.run())?);
        writer.threads.push(supervisor.thread_until_done("store-disk", move || commit_all(&disk, &commits))?);
        Ok(writer)
    }

    /// Writes what is still to be written, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.store.signal.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the store's writer was not seen to its end");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for the disk, so that the other thread need not.
fn commit_all(store: &Store, commits: &Receiver<Arc<Changes>>) {
    give_way();
    for changes in commits {
        let _told = Committing(store);
        fault::point("store-disk");
        store.signal.committed(store.books.commit(&changes));
    }
}

/// A commit under way. One that ends in a panic has ended all the same, and the other thread must not wait for it.
struct Committing<'a>(&'a Store);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.signal.committed(Err(StoreError::panicked(self.0.books.path())));
        }
    }
}

impl Work {
    fn run(&mut self) {
        let mut begun = Instant::now();
        let (mut earliest, mut latest) = (HURRIED, INTERVAL);
        let mut last = false;
        while !last || self.committing.is_some() {
            let late = self.committing.as_ref().map(|commit| commit.late);
            let due = match late {
                None => Due::Checkpoint { earliest: begun + earliest, latest: begun + latest },
                Some(late) => Due::Commit(late.unwrap_or(begun + latest)),
            };
            fault::point("store");
            let went_well = match self.store.signal.wait(due) {
                Event::Due if late.flatten().is_some() => self.commit_is_late(),
                Event::Due => {
                    begun = Instant::now();
                    last |= self.store.signal.begin() && self.committing.is_none();
                    self.checkpoint()
                }
                Event::Committed(result) => self.committed(result),
            };
            (earliest, latest) = if went_well { (HURRIED, INTERVAL) } else { (RETRY, RETRY) };
        }
    }

    /// Takes what has changed, and has it put on the disk; or into the journal, if the disk is still busy with what
    /// changed before.
    fn checkpoint(&mut self) -> bool {
        let number = self.store.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.gateway.clock.now();
        if self.committing.is_none()
            && let Err(error) = self.store.books.check_place()
        {
            self.failed(&error, now);
        }
        let changes = self.changes(number, now);
        if self.committing.is_some() {
            self.note(&changes, now);
        } else if changes.is_empty() && self.store.outage.lock().is_none() {
            self.on_disk(number, now);
        } else {
            let changes = Arc::new(changes);
            // It waits for this, and ends after this thread, unless it panicked. Then the journal has the last word.
            if self.committer.send(Arc::clone(&changes)).is_err() {
                self.note(&changes, now);
                return false;
            }
            let late = Some(Instant::now() + PATIENCE);
            self.committing = Some(Commit { changes, begun: now, late });
        }
        true
    }

    /// Has the journal keep what the commit under way was given.
    fn commit_is_late(&mut self) -> bool {
        if let Some(commit) = &mut self.committing {
            commit.late = None;
            let (changes, begun) = (Arc::clone(&commit.changes), commit.begun);
            self.note(&changes, begun);
        }
        true
    }

    /// Puts changes, taken at that moment, into the journal; the commit under way may still succeed where that fails.
    fn note(&mut self, changes: &Changes, begun: Now) {
        match self.store.books.note(changes) {
            Ok(()) => self.kept(changes.number, begun),
            Err(error) => self.tell_slow(|| {
                tracing::warn!(
                    error = %error,
                    "the store's journal cannot be written: a kill would lose what is not on the disk yet"
                );
            }),
        }
    }

    /// All that has changed and is not known to be on the disk.
    fn changes(&mut self, number: u64, now: Now) -> Changes {
        let over = self.over(now);
        // Until the accounts were looked at, none is adjusted.
        let store = Arc::clone(&self.store);
        let mut adjusted = store.adjusted.lock();
        let some = adjusted.len().min(ADJUSTMENTS_AT_ONCE);
        self.pending.adjust(number, self.hour, adjusted.drain(..some));
        // The ledger first: a call that is settled in between is missing there until the next checkpoint. The other way
        // round a crash would count it twice, as settled and as held.
        self.gateway.metrics.read_cost(|counters| self.pending.collect(number, self.hour, counters));
        self.hour = hour_of(now.utc_seconds);
        let mut accounts: Vec<(TenantName, Arc<Account>, Checkpoint)> = Vec::new();
        self.gateway.each_account(|tenant, account| {
            if let Some(checkpoint) = account.checkpoint(now) {
                accounts.push((tenant.clone(), Arc::clone(account), checkpoint));
            }
        });
        drop(adjusted);
        let gone = self.gateway.forget(over, now);
        accounts.retain(|(tenant, _, _)| !gone.contains(tenant));
        Changes { number, hour: self.hour, accounts, rows: self.pending.rows(), gone }
    }

    /// The removed tenants that nothing has to be kept of, looked for now and then.
    fn over(&mut self, now: Now) -> Vec<TenantName> {
        if now.monotonic_ms < self.look_for_over_at_ms {
            return Vec::new();
        }
        self.look_for_over_at_ms = now.monotonic_ms + OVER_INTERVAL_MS;
        self.gateway.over(now)
    }

    fn committed(&mut self, result: Result<(), StoreError>) -> bool {
        let Some(Commit { changes, begun, late }) = self.committing.take() else { return true };
        if let Err(error) = result {
            // Where the journal takes it, a kill or a stop loses no more than while all is well. What it has already may be
            // younger.
            if late.is_some() {
                self.note(&changes, begun);
            }
            return self.failed(&error, begun);
        }
        for (_, account, checkpoint) in &changes.accounts {
            account.kept(checkpoint);
        }
        self.pending.written(&changes.rows, self.hour);
        let files = self.store.books.files();
        if std::mem::replace(&mut self.files, files) != files {
            tracing::warn!(
                "another file is in the place of the store's: all that this process knows is written to it; what only the file \
                 before had of the ledger is not in it"
            );
            self.gateway.each_account(|_, account| account.forgotten());
            self.pending.repeat();
            // Nothing is kept before that is written, too.
            self.store.signal.hurry();
            return true;
        }
        self.succeeded(begun);
        let took_ms = self.gateway.clock.now().monotonic_ms.saturating_sub(begun.monotonic_ms);
        let took = Duration::from_millis(took_ms);
        self.gateway.metrics.store_checkpoint.observe(took.as_secs_f64());
        if took > SLOW {
            self.tell_slow(|| {
                let seconds = took.as_secs_f64();
                tracing::warn!(
                    seconds,
                    "the disk is slow: a power cut would have lost what was used in so many seconds"
                );
            });
        }
        self.on_disk(changes.number, begun);
        true
    }

    /// A checkpoint that was begun at that moment outlives the process.
    fn kept(&self, number: u64, begun: Now) {
        self.gateway.metrics.store_kept_at_ms.fetch_max(begun.monotonic_ms, Ordering::Relaxed);
        self.store.done.send_modify(|done| done.kept = done.kept.max(number));
    }

    /// A checkpoint that was begun at that moment is on the disk.
    fn on_disk(&self, number: u64, begun: Now) {
        self.gateway.metrics.store_on_disk_at_ms.store(begun.monotonic_ms, Ordering::Relaxed);
        self.store.done.send_modify(|done| done.on_disk = number);
        self.kept(number, begun);
    }

    fn tell_slow(&mut self, tell: impl FnOnce()) {
        if self.told.is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
            self.told = Some(Instant::now());
            tell();
        }
    }

    /// What could not be written is written next time.
    fn failed(&self, error: &StoreError, now: Now) -> bool {
        let mut outage = self.store.outage.lock();
        if outage.is_none() {
            let problem = error.to_string();
            self.gateway.metrics.store_up.set(0);
            tracing::error!(
                problem,
                "the store is down: budgets and the ledger are kept in memory, and in the journal if that can be written, until it is back"
            );
            *outage = Some(Outage { since: now.utc_seconds, problem });
        }
        false
    }

    fn succeeded(&self, now: Now) {
        if let Some(outage) = self.store.outage.lock().take() {
            self.gateway.metrics.store_up.set(1);
            self.store.announce_again();
            let seconds = now.utc_seconds.saturating_sub(outage.since);
            tracing::warn!(seconds, "the store is back, and has all that was counted meanwhile");
        }
    }
}

/// Lets the workers go first: a commit takes milliseconds, and a chunk that waits for one is late by as much. The thread
/// that takes what has changed does not: its work is short, and on a busy machine a kill would lose what it comes too late
/// for. The journal helps where this one does.
fn give_way() {
    // On Linux, "this process" is this thread (setpriority(2), notes).
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        tracing::debug!(error = %error, "the store's thread keeps its priority");
    }
}

/// The nicest there is.
const LOWEST_PRIORITY: i32 = 19;
