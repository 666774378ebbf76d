//! What of a lease only a tenant that makes calls needs.

use super::{Amounts, RESOURCES};

/// What a node has leased of one resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) leased: u64,
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
    pub(super) const NONE: Self =
        Self { leased: 0, available: 0, target: 0, exhausted_until_ms: 0, more_at_ms: 0 };
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
    pub(super) valid_until_ms: u64,
    pub(super) called_at_ms: u64,
    /// Somebody was told that the lease is nearly used up.
    pub(super) nudged: bool,
}

impl Active {
    /// As it is before the first call.
    pub(super) const NEW: Self = Self {
        slices: [Slice::NONE; RESOURCES],
        known: false,
        needed: Amounts::NONE,
        peak: Amounts::NONE,
        valid_until_ms: 0,
        called_at_ms: 0,
        nudged: false,
    };
}

/// What a tenant has that makes no calls.
pub(super) static RESTING: Active = Active::NEW;
