//! Whether the fleet's store can be asked, as every account sees it.

use std::sync::atomic::{AtomicBool, Ordering};

/// How a node stands with the fleet's store, shared by all accounts.
#[derive(Debug)]
pub struct Standing {
    up: AtomicBool,
    away: Footing,
}

/// How a node stands with the fleet's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footing {
    /// The store answers: the lease is all that may be used.
    Shared,
    /// It does not: the node may use its lease while that holds, and its outage share.
    Alone,
    /// It does not, and no call is let in without it.
    Refusing,
}

impl Standing {
    /// A standing with a store that is away; `away` says what follows whenever it is.
    #[must_use]
    pub const fn new(away: Footing) -> Self {
        Self { up: AtomicBool::new(false), away }
    }

    /// How it is at this moment.
    #[must_use]
    pub fn footing(&self) -> Footing {
        if self.up.load(Ordering::Acquire) { Footing::Shared } else { self.away }
    }

    /// Whether an outage share would ever be used.
    #[must_use]
    pub fn uses_shares(&self) -> bool {
        self.away == Footing::Alone
    }

    /// Changes how it is, for the next decision of any account.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }
}
