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

/// When the next checkpoint is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// If somebody waits for it, or the store is to stop.
    pub(super) earliest: Instant,
    /// If nobody does.
    pub(super) latest: Instant,
}

/// Why the writer goes on.
#[derive(Debug)]
pub(super) enum Event {
    /// A checkpoint is due.
    Due {
        /// It is to be the last one.
        stop: bool,
    },
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

    /// Waits for what comes first. While a commit is under way only the end of it is hurried.
    pub(super) fn wait(&self, due: Due, committing: bool) -> Event {
        let mut told = self.told.lock();
        loop {
            if let Some(result) = told.committed.take() {
                return Event::Committed(result);
            }
            let until = if (told.hurry || told.stop) && !committing { due.earliest } else { due.latest };
            if Instant::now() >= until {
                told.hurry = false;
                return Event::Due { stop: told.stop };
            }
            self.changed.wait_until(&mut told, until);
        }
    }
}
