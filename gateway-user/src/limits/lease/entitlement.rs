//! What a node may use of a budget at a moment, with the fleet's store and without it.
//!
//! # What always holds
//!
//! Of every limit of a tenant, at every moment of the store's clock:
//!
//! > what is settled + what all nodes have leased + all outage shares ≤ the limit
//!
//! *Settled* is what nodes have reported, in the sliding minute or the period. A lease and a share are set apart in the
//! store (`fleet/lease.lua`) when a node is told of them, and stay so until after the node can no longer use them:
//!
//! - A node uses its **lease** for `LEASE_LIFETIME`, and while the store is away its **share** for
//!   [`OUTAGE_MS`], both counted from before it asked. The store counts from when it answers. A node that stood still, or
//!   whose answer came late, is the first to think that it is over. [`Until`] says how a suspended machine is seen.
//! - The store keeps a lease of the minute for the lifetime and 61 s more, as long as what was used of it counts, and a share
//!   for ten minutes and 66 s. The difference is what the two clocks' rates may differ by. A quota's lease and share are kept
//!   until the node is heard of again, after ten minutes as used. So an outage may use a quota's lease as long as the share.
//! - A share is of the sliding minute: what was used of it is free again a minute later, so that an outage longer than a
//!   minute is served too. Whatever a node uses after its lease is over is of the share, also by calls that the lease let in.
//! - A share gets smaller on the node first, and in the store only when the node has said so. It gets larger in the store
//!   first. So each of the two may miss any message of the other.
//! - What was used in an outage is reported before the node leases anew. When no node was heard of for a while, the store
//!   leases each node only what it has not used of its share, for two seconds, in which all nodes report (`fleet/nodes.lua`).
//!
//! A node that joins during an outage has no share and refuses. So does one whose share of something is nothing, as of two
//! slots for open calls: what cannot be divided is nobody's.
//!
//! # What does not
//!
//! A lease counts on calls ending while it is kept. Where one node alone is cut off from a store that others use, what its
//! open calls use more than a second after its lease was over may come beside what the others use more than a minute after
//! that; [`Lease::overdrawn`] is how much. Slots of open calls are kept for five seconds only, because a node that died has
//! none open. What a store lost that came back empty, a node must be able to tell it within the two seconds. And a store whose
//! clock is set forward forgets sooner.

use super::active::Until;
use super::{Footing, Lease, Resource};
use crate::limits::Now;

/// How long a node may use an outage share after the request that renewed it.
pub(super) const OUTAGE_MS: u64 = 600_000;
/// How long after its end the store still keeps a lease of the minute, at least.
const LEASE_COUNTS_MS: u64 = 60_000;

/// What one decision needs to know of one resource.
#[derive(Debug, Clone, Copy)]
pub(in crate::limits) struct Budget {
    pub(in crate::limits) resource: Resource,
    pub(in crate::limits) limit: u64,
    /// By open calls of this node.
    pub(in crate::limits) held: u64,
    /// What this node used in the last minute; of anything else nothing.
    pub(in crate::limits) minute: Minute,
}

/// What a node used of a sliding minute.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::limits) struct Minute {
    pub(in crate::limits) used: u64,
    /// Since the lease was over, where it is.
    pub(in crate::limits) late: u64,
}

impl Lease {
    /// What of a resource is set apart for this node, and neither used nor held.
    pub(in crate::limits) fn free(&self, budget: &Budget, now: Now) -> u64 {
        let slice = &self.active().slices[budget.resource.index()];
        let (leased, held) = (i128::from(slice.leased), i128::from(budget.held));
        let share = i128::from(self.share(budget.resource, now));
        let used = self.unreported(budget);
        let free = if self.has_lease(budget.resource, now) {
            leased + share - used - held
        } else {
            // What was used while there was a lease is of the lease, as far as that went.
            let late = used.min(i128::from(budget.minute.late));
            share - (used - late - leased).max(0) - late - held
        };
        u64::try_from(free.max(0)).unwrap_or(u64::MAX)
    }

    /// What of a resource this node could get hold of, as far as it knows.
    pub(in crate::limits) fn reach(&self, budget: &Budget, now: Now) -> u64 {
        let active = self.active();
        let available = match self.footing() {
            Footing::Alone | Footing::Refusing => 0,
            // Before an answer it knows nothing, and local limits are all there is to go by.
            Footing::Shared if !active.known => u64::MAX,
            Footing::Shared => active.slices[budget.resource.index()].available,
        };
        self.free(budget, now).saturating_add(available)
    }

    /// Whether a call for which too little is free is one too many for the tenant's limit, and not only for what this node may
    /// use of it without the store.
    pub(in crate::limits) fn is_used_up(&self, resource: Resource, now: Now) -> bool {
        let active = self.active();
        let slice = &active.slices[resource.index()];
        match (self.footing(), resource) {
            (Footing::Refusing, _) => false,
            // A quota is not used up before the store says so: who is told waits until the period ends.
            (Footing::Shared, Resource::PeriodTokens(_) | Resource::PeriodCost(_)) => {
                self.is_exhausted(resource, now)
            }
            (Footing::Alone, Resource::PeriodTokens(_) | Resource::PeriodCost(_)) => false,
            (Footing::Shared, _) => active.known && active.lease_until.is_ahead(now),
            (Footing::Alone, Resource::Calls | Resource::Tokens) => {
                active.known && active.share_until.is_ahead(now)
            }
            // Slots that nobody has taken are there, and cannot be divided.
            (Footing::Alone, Resource::OpenCalls) => {
                self.share(resource, now) > 0
                    || (self.has_lease(resource, now) && slice.leased > 0)
                    || (slice.available == 0 && active.known && active.share_until.is_ahead(now))
            }
        }
    }

    /// When the lease was over, where it is, in milliseconds of the monotonic clock.
    pub(in crate::limits) fn over_since_ms(&self, now: Now) -> Option<u64> {
        let until = self.active().lease_until;
        (!until.is_ahead(now)).then(|| until.monotonic_ms.min(now.monotonic_ms))
    }

    /// What this node has used or holds of the minute's tokens beyond what the store keeps for it.
    pub(in crate::limits) fn overdrawn(&self, budget: &Budget, now: Now) -> u64 {
        let active = self.active();
        let slice = &active.slices[budget.resource.index()];
        let lease_counts_ms = active.lease_until.monotonic_ms.saturating_add(LEASE_COUNTS_MS);
        let kept = if now.monotonic_ms < lease_counts_ms { slice.leased } else { 0 };
        let kept = i128::from(kept) + i128::from(self.outage_share(budget.resource, now));
        let beyond = self.unreported(budget) + i128::from(budget.held) - kept;
        u64::try_from(beyond.max(0)).unwrap_or(u64::MAX)
    }

    /// What may be used of a resource beside the lease while the store is away.
    pub(in crate::limits) fn outage_share(&self, resource: Resource, now: Now) -> u64 {
        let active = self.active();
        if active.share_until.is_ahead(now) { active.slices[resource.index()].share } else { 0 }
    }

    /// What may be used of it at this moment.
    fn share(&self, resource: Resource, now: Now) -> u64 {
        match self.footing() {
            Footing::Alone => self.outage_share(resource, now),
            Footing::Shared | Footing::Refusing => 0,
        }
    }

    fn has_lease(&self, resource: Resource, now: Now) -> bool {
        self.lease_until(resource).is_ahead(now)
    }

    /// Until when the lease of a resource may be used.
    pub(super) fn lease_until(&self, resource: Resource) -> Until {
        let active = self.active();
        match (self.footing(), resource) {
            (Footing::Alone, Resource::PeriodTokens(_) | Resource::PeriodCost(_)) => active.share_until,
            (Footing::Alone | Footing::Shared | Footing::Refusing, _) => active.lease_until,
        }
    }

    /// What was booked since the store's last acknowledgement and still counts.
    pub(super) fn unreported(&self, budget: &Budget) -> i128 {
        let (booked, acknowledged) = (&self.booked, &self.acknowledged);
        let since = |booked: u64, acknowledged: u64| i128::from(booked) - i128::from(acknowledged);
        match budget.resource {
            Resource::Calls => since(booked.calls, acknowledged.calls).min(i128::from(budget.minute.used)),
            Resource::Tokens => {
                since(booked.window_tokens, acknowledged.window_tokens).min(i128::from(budget.minute.used))
            }
            Resource::PeriodTokens(_) => since(booked.tokens, acknowledged.tokens),
            Resource::PeriodCost(_) => since(booked.cost, acknowledged.cost),
            Resource::OpenCalls => 0,
        }
    }
}
