//! What the writer's thread is told by others, and waits for.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::StoreError;

/// What the writer waits for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    hurry: bool,
    stop: bool,
    committed: Option<Result<(), StoreError>>,
}

/// What is waited for besides the end of a commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// The next checkpoint, while no commit is under way.
    Checkpoint {
        /// If somebody waits for it, or the store is to stop.
        earliest: Instant,
        /// If nobody does.
        latest: Instant,
    },
    /// What is to be done at that moment if a commit is under way still. It is not hurried: the commit may be about to end.
    Commit(Instant),
}

/// Why the writer goes on.
#[derive(Debug)]
pub(super) enum Event {
    /// What was due is due now.
    Due,
    /// The commit under way has ended.
    Committed(Result<(), StoreError>),
}

impl Signal {
    /// Somebody waits for a checkpoint.
    pub(super) fn hurry(&self) {
        self.tell(|told| told.hurry = true);
    }

    /// The next checkpoint is to be the last.
    pub(super) fn stop(&self) {
        self.tell(|told| told.stop = true);
    }

    /// The commit under way has ended.
    pub(super) fn committed(&self, result: Result<(), StoreError>) {
        self.tell(|told| told.committed = Some(result));
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.changed.notify_one();
    }

    /// A checkpoint begins, which whoever waited for one waits for: whether it is to be the last.
    pub(super) fn begin(&self) -> bool {
        let mut told = self.told.lock();
        told.hurry = false;
        told.stop
    }

    /// Waits for what comes first.
    pub(super) fn wait(&self, due: Due) -> Event {
        let mut told = self.told.lock();
        loop {
            if let Some(result) = told.committed.take() {
                return Event::Committed(result);
            }
            let until = match due {
                Due::Checkpoint { earliest, .. } if told.hurry || told.stop => earliest,
                Due::Checkpoint { latest, .. } => latest,
                Due::Commit(at) => at,
            };
            if Instant::now() >= until {
                return Event::Due;
            }
            self.changed.wait_until(&mut told, until);
        }
    }
}
