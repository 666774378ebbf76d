//! Whether the fleet's store can be asked, as every account sees it.

use std::sync::atomic::{AtomicU32, Ordering};

/// How a node stands with the fleet's store, shared by all accounts.
#[derive(Debug)]
pub struct Standing(AtomicU32);

/// How a node stands with the fleet's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footing {
    /// The store answers: the lease is all that may be used.
    Shared,
    /// It does not: the node may use its lease and its share of the limits.
    Alone {
        /// Nodes to share a limit with, this one included.
        nodes: u32,
    },
    /// It does not, and no call is let in without it.
    Refusing,
}

impl Standing {
    /// A standing.
    #[must_use]
    pub fn new(footing: Footing) -> Self {
        let standing = Self(AtomicU32::new(0));
        standing.set(footing);
        standing
    }

    /// How it is at this moment.
    #[must_use]
    pub fn footing(&self) -> Footing {
        match self.0.load(Ordering::Acquire) {
            0 => Footing::Shared,
            u32::MAX => Footing::Refusing,
            nodes => Footing::Alone { nodes },
        }
    }

    /// Changes how it is, for the next decision of any account.
    pub fn set(&self, footing: Footing) {
        let value = match footing {
            Footing::Shared => 0,
            Footing::Alone { nodes } => nodes.clamp(1, u32::MAX - 1),
            Footing::Refusing => u32::MAX,
        };
        self.0.store(value, Ordering::Release);
    }
}
