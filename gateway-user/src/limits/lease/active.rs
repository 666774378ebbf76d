//! What of a lease only a tenant that makes calls needs.

use super::{Amounts, RESOURCES};
use crate::limits::Now;

/// What a node has leased of one resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) leased: u64,
    /// What it may use beside that while the store is away.
    pub(super) share: u64,
    /// A call was refused for want of more, which the store is to be told.
    pub(super) refused: bool,
    /// What the store could still lease when it last answered.
    pub(super) available: u64,
    /// What the node should have unused.
    pub(super) target: u64,
    /// Until when asking is of no use: the store had too little.
    pub(super) exhausted_until_ms: u64,
    /// When the store expected to have more.
    pub(super) more_at_ms: u64,
}

impl Slice {
    pub(super) const NONE: Self = Self {
        leased: 0,
        share: 0,
        refused: false,
        available: 0,
        target: 0,
        exhausted_until_ms: 0,
        more_at_ms: 0,
    };
}

/// Until when something holds, on both clocks: one stands still while the machine is suspended, the other can be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) monotonic_ms: u64,
    utc_seconds: u64,
}

impl Until {
    /// Never.
    const PAST: Self = Self { monotonic_ms: 0, utc_seconds: 0 };

    /// So many milliseconds from a moment on.
    pub(super) const fn after(from: Now, ms: u64) -> Self {
        Self {
            monotonic_ms: from.monotonic_ms.saturating_add(ms),
            // Whole seconds: the running one is as good as over.
            utc_seconds: from.utc_seconds.saturating_add(ms.div_ceil(1000)).saturating_add(1),
        }
    }

    pub(super) const fn is_ahead(self, now: Now) -> bool {
        now.monotonic_ms < self.monotonic_ms && now.utc_seconds <= self.utc_seconds
    }
}

/// What only a tenant that makes calls needs.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) slices: [Slice; RESOURCES],
    /// The store has answered: what the slices say is what it said.
    pub(super) known: bool,
    /// The most that a call needs that waits for a larger lease.
    pub(super) needed: Amounts,
    /// A sinking peak of what calls needed.
    pub(super) peak: Amounts,
    /// Until when the lease holds.
    pub(super) lease_until: Until,
    /// Until when the outage shares hold.
    pub(super) share_until: Until,
    pub(super) called_at_ms: u64,
    /// Somebody was told that the lease is nearly used up.
    pub(super) nudged: bool,
    /// A share has become smaller, and the store keeps the larger one until it is told.
    pub(super) lowered: bool,
}

impl Active {
    /// As it is before the first call.
    pub(super) const NEW: Self = Self {
        slices: [Slice::NONE; RESOURCES],
        known: false,
        needed: Amounts::NONE,
        peak: Amounts::NONE,
        lease_until: Until::PAST,
        share_until: Until::PAST,
        called_at_ms: 0,
        nudged: false,
        lowered: false,
    };
}

/// What a tenant has that makes no calls.
pub(super) static RESTING: Active = Active::NEW;
