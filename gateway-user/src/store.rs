//! Where budgets and the ledger survive a stop, a crash and a power cut: an embedded database in a directory.
//!
//! Calls count in memory and wait for no disk. A thread of its own ([`Writer`]) takes what has changed twice a second
//! and has it committed in one transaction. Where the disk is slow, what has changed goes to a journal that waits for no
//! disk, so that a killed process loses less than a second whatever the disk does. Only a refusal waits, for
//! the short time until the books that it rests on are kept: what a caller was once refused, no restart lets through.

mod books;
mod database;
mod error;
mod owner;
mod record;
mod signal;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ledger::{Adjustment, BeyondAssumed, Query, RETENTION_HOURS, Report, Since};
use crate::limits::{Account, Now};
use crate::metrics::Metrics;
use crate::names::TenantName;
use books::{Books, Recovered};
use signal::Signal;

pub use error::StoreError;
pub use owner::Owner;
pub use writer::Writer;

/// How long a refusal waits until the books that it rests on are kept.
const KEEP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a report waits for what was used in the last half second.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// The store, as all but its writer see it.
#[derive(Debug)]
pub struct Store {
    books: Books,
    signal: Signal,
    /// The number of the last checkpoint that was begun.
    begun: AtomicU64,
    done: watch::Sender<Done>,
    outage: Mutex<Option<Outage>>,
    /// Where the gateway answers operators.
    announced: OnceLock<SocketAddr>,
    /// Adjustments that accounts have and no checkpoint has taken yet. Whoever changes an account so holds this lock, and so
    /// does a checkpoint from its first look to its last: it has both the change and its row, or neither.
    adjusted: Mutex<VecDeque<Adjustment>>,
    /// Held by who adjusts the books, from the look at what was assumed on.
    adjusting: tokio::sync::Mutex<()>,
}

/// Why the books were not adjusted.
#[derive(Debug, thiserror::Error)]
pub enum AdjustError {
    /// It would give back too much.
    #[error(transparent)]
    BeyondAssumed(#[from] BeyondAssumed),
    /// The ledger cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far checkpoints have come, by their numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    /// The last that a killed process does not lose.
    kept: u64,
    /// The last that is on the disk.
    on_disk: u64,
}

/// Since when the store takes nothing, and why.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When a checkpoint failed first, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// What failed then.
    pub problem: String,
}

/// A store with what it had kept.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<Store>,
    /// The accounts as they go on.
    pub accounts: HashMap<TenantName, Arc<Account>>,
}

impl Store {
    /// Opens the store in a directory, settles what was open when it was last used, and forgets what is too
    /// old.
    ///
    /// # Errors
    /// When it cannot be used: each error says what to do.
    pub fn open(directory: &Path, now: Now) -> Result<Opened, StoreError> {
        let Recovered { books, accounts, number, problem } = Books::recover(directory, now)?;
        let outage = problem.map(|problem| Outage { since: now.utc_seconds, problem: problem.to_string() });
        if let Some(Outage { problem, .. }) = &outage {
            tracing::error!(
                problem,
                "the store can be read and not written: budgets go on from what it has, and are kept in memory until there is room"
            );
        }
        let store = Arc::new(Self {
            books,
            signal: Signal::default(),
            begun: AtomicU64::new(number),
            done: watch::Sender::new(Done { kept: number, on_disk: number }),
            outage: Mutex::new(outage),
            announced: OnceLock::new(),
            adjusted: Mutex::default(),
            adjusting: tokio::sync::Mutex::default(),
        });
        Ok(Opened { store, accounts })
    }

    /// Leaves a note in the directory of who uses it, for those who find it in use.
    pub fn announce(&self, admin: SocketAddr) {
        self.announced.get_or_init(|| admin);
        self.announce_again();
    }

    /// Leaves that note again: the directory may be another.
    fn announce_again(&self) {
        let Some(admin) = self.announced.get() else { return };
        let owner = Owner { pid: std::process::id(), admin: *admin };
        if let Err(error) = owner.write(self.books.directory()) {
            tracing::warn!(error = %error, "cannot leave a note in the store's directory");
        }
    }

    /// Answers from the ledger, the last call included.
    ///
    /// # Errors
    /// When the store is down or cannot be read.
    pub async fn usage(self: &Arc<Self>, query: Query, now: Now) -> Result<Report, StoreError> {
        if !self.next_checkpoint(REPORT_PATIENCE, |done| done.on_disk).await {
            let problem =
                self.outage().map_or_else(|| "the disk is slow".to_owned(), |outage| outage.problem);
            return Err(StoreError::Down { directory: self.books.directory().to_owned(), problem });
        }
        let store = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || store.books.report(&query, now.utc_seconds));
        reading.await.unwrap_or_else(|_panicked| Err(StoreError::panicked(self.books.path())))
    }

    /// Adjusts a tenant's account and the ledger. Whether it is on the disk; where it is not, it will be once the store works
    /// again.
    ///
    /// # Errors
    /// Nothing was changed then: more would be given back than was assumed, and it is not `forced`, or the ledger cannot be
    /// read, which says what was assumed.
    pub async fn adjust(
        self: &Arc<Self>,
        account: &Account,
        adjustment: Adjustment,
        forced: bool,
        (metrics, now): (&Metrics, Now),
    ) -> Result<bool, AdjustError> {
        let _turn = self.adjusting.lock().await;
        if !forced {
            let tenant = Some(adjustment.tenant.clone());
            let query = Query { since: Since::Hours(RETENTION_HOURS), by: Vec::new(), tenant };
            adjustment.within_assumed(&self.usage(query, now).await?.total())?;
        }
        metrics.adjusted(&adjustment);
        {
            let mut adjusted = self.adjusted.lock();
            account.adjust(adjustment.charged(), adjustment.given_back(), now);
            adjusted.push_back(adjustment);
        }
        Ok(self.next_checkpoint(REPORT_PATIENCE, |done| done.on_disk).await)
    }

    /// Waits until what an account has counted so far outlives the process, if it does not; not for long, and not at all
    /// while the store is down.
    pub async fn keep(&self, account: &Account) {
        if !account.is_kept() && self.outage.lock().is_none() {
            self.next_checkpoint(KEEP_PATIENCE, |done| done.kept).await;
        }
    }

    /// Has what has changed put on the disk at once rather than within half a second.
    pub fn hurry(&self) {
        self.signal.hurry();
    }

    /// Waits until the first checkpoint that begins after now has come so far. Whether it came in time.
    async fn next_checkpoint(&self, patience: Duration, so_far: fn(&Done) -> u64) -> bool {
        // A checkpoint that has begun may have passed an account before its last change.
        let wanted = self.begun.load(Ordering::Relaxed) + 1;
        let mut done = self.done.subscribe();
        self.hurry();
        tokio::time::timeout(patience, done.wait_for(|done| so_far(done) >= wanted))
            .await
            .is_ok_and(|done| done.is_ok())
    }

    /// Since when the store takes nothing; `None` while it does.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.books.directory()
    }
}

/// The files that a store in a directory has its books in.
#[must_use]
pub fn files(directory: &Path) -> [PathBuf; 2] {
    Books::files_in(directory)
}

/// Where the gateway answers operators that uses a directory, or used it last; nothing where no gateway has.
#[must_use]
pub fn admin_of(directory: &Path) -> Option<SocketAddr> {
    Owner::read(directory).map(|owner| owner.admin)
}

/// What the ledger in a directory says that no gateway uses at the moment.
///
/// # Errors
/// [`StoreError::InUse`] names the gateway that does; others say what to do.
pub fn read(directory: &Path, query: &Query, now: Now) -> Result<Report, StoreError> {
    Books::open_existing(directory)?.report(query, now.utc_seconds)
}
