//! A node's part of budgets that a fleet shares: what it has leased of each, and what it has used of that.
//!
//! Of every limit that a tenant has, a node may hold and use only what it has leased from the fleet's store. A call
//! that ends gives what it did not use back to the lease, not to the store. With the lease comes an outage share, which the
//! node may use too while the store is away; or nothing more is let in then: [`Standing`] says which. Of both there is never
//! more than the limit: `entitlement` says how.

mod active;
mod entitlement;
mod exchange;
mod standing;

use std::sync::Arc;

use super::Now;
use super::period::Period;
use crate::units::{NanoDollars, Tokens};

use active::{Active, RESTING, Slice, Until};
use entitlement::OUTAGE_MS;
pub(super) use entitlement::{Budget, Minute};
pub use exchange::{Booked, LeaseReply, LeaseRequest, Occasion, RESOURCES, SliceReply, SliceRequest};
pub use standing::{Footing, Standing};

/// How long after an answer that the fleet has nothing left it is not asked again.
const ASK_AGAIN_MS: u64 = 500;
/// A tenant that made no call for so long gives back what it has leased.
const IDLE_MS: u64 = 3_000;
/// How often the shares of a tenant are renewed that makes no calls; so often that the node counts as alive.
const SHARE_RENEWAL_MS: u64 = 3_000;
/// A tenant that the store has heard of is told of again after so long, calls or not: it forgets after a day what a node had
/// told it, and would have to be told all of it.
const REMIND_MS: u64 = 8 * 3_600_000;
/// How many calls of the size of the largest recent one a node would like to have leased ahead.
const CALLS_AHEAD: u64 = 4;
/// The most that is told to the store, whose numbers are floating: 2^53, nine million dollars.
const MOST: u64 = 1 << 53;

/// The place of a resource among the [`RESOURCES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Calls,
    Tokens,
    PeriodTokens(Period),
    PeriodCost(Period),
    /// Calls open at once. They are held and never used up: a slot is back when its call ends.
    OpenCalls,
}

impl Resource {
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Calls => 0,
            Self::Tokens => 1,
            Self::PeriodTokens(period) => 2 + 2 * period.index(),
            Self::PeriodCost(period) => 3 + 2 * period.index(),
            Self::OpenCalls => RESOURCES - 1,
        }
    }

    /// The amount that is of this resource's unit.
    pub(super) const fn of(self, amounts: &Amounts) -> u64 {
        match self {
            Self::Calls | Self::OpenCalls => amounts.calls,
            Self::Tokens | Self::PeriodTokens(_) => amounts.tokens,
            Self::PeriodCost(_) => amounts.cost,
        }
    }
}

/// Calls, tokens and nano-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) calls: u64,
    pub(super) tokens: u64,
    pub(super) cost: u64,
}

impl Amounts {
    const NONE: Self = Self { calls: 0, tokens: 0, cost: 0 };

    fn most(self, other: Self) -> Self {
        Self {
            calls: self.calls.max(other.calls),
            tokens: self.tokens.max(other.tokens),
            cost: self.cost.max(other.cost),
        }
    }

    const fn less_an_eighth(self) -> Self {
        const fn less(amount: u64) -> u64 {
            amount - amount.div_ceil(8)
        }
        Self { calls: less(self.calls), tokens: less(self.tokens), cost: less(self.cost) }
    }
}

/// What a node has leased of a tenant's budgets.
#[derive(Debug)]
pub(super) struct Lease {
    standing: Arc<Standing>,
    /// How it stood when the running decision began.
    footing: Footing,
    pub(super) booked: Booked,
    acknowledged: Booked,
    generation: Box<str>,
    started: u64,
    answered: u64,
    answered_at_ms: u64,
    /// `None` while the tenant makes no calls here and nothing is leased, so that it takes little memory then.
    active: Option<Box<Active>>,
}

/// Which request to the store will have carried what a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// Whether a node has leased enough for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// It has, or asking for more is of no use.
    Enough,
    /// It has, but little will be left: somebody should ask for more.
    Low,
    /// It has not, and the store may have more.
    Short(Ticket),
}

/// What a request says of this node and the store, beside what it asks for.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) sequence: u64,
    pub(super) answered: u64,
    pub(super) generation: Box<str>,
    pub(super) used: Booked,
    pub(super) acknowledged: Booked,
}

impl Lease {
    pub(super) fn new(standing: Arc<Standing>) -> Self {
        Self {
            footing: standing.footing(),
            standing,
            booked: Booked::default(),
            acknowledged: Booked::default(),
            generation: Box::default(),
            started: 0,
            answered: 0,
            answered_at_ms: 0,
            active: None,
        }
    }

    /// Gives back the memory that only a tenant with calls needs, if there were none for a while and the store knows all.
    pub(super) fn rest(&mut self, now: Now) {
        if !self.is_due() && self.is_idle(now) && !self.has_shares(now) {
            self.active = None;
        }
    }

    pub(super) fn book(&mut self, window_tokens: Tokens, tokens: [Tokens; 2], cost: [NanoDollars; 2]) {
        let booked = &mut self.booked;
        booked.window_tokens = booked.window_tokens.saturating_add(window_tokens.get());
        booked.tokens = booked.tokens.saturating_add(tokens[0].get()).saturating_sub(tokens[1].get());
        booked.cost = booked.cost.saturating_add(cost[0].get()).saturating_sub(cost[1].get());
    }

    /// Reads how the node stands with the store, for all of one decision.
    pub(super) fn read_footing(&mut self) {
        self.footing = self.standing.footing();
    }

    /// How the node stood with the store when the running decision began.
    pub(super) const fn footing(&self) -> Footing {
        self.footing
    }

    /// Whether the store has just said that it has nothing left of a resource.
    fn is_exhausted(&self, resource: Resource, now: Now) -> bool {
        now.monotonic_ms < self.active().slices[resource.index()].exhausted_until_ms
    }

    /// Notes that a call is refused for what is not leased.
    pub(super) fn refuse(&mut self, resource: Resource) {
        if self.footing() == Footing::Shared {
            self.active_mut().slices[resource.index()].refused = true;
        }
    }

    /// How long until the store expects to have more, in milliseconds.
    pub(super) fn more_in_ms(&self, resource: Resource, now: Now) -> Option<u64> {
        self.active().slices[resource.index()]
            .more_at_ms
            .checked_sub(now.monotonic_ms)
            .filter(|wait| *wait > 0)
    }

    /// Whether what is leased covers a call's needs; notes them where it does not and asking may help.
    pub(super) fn cover(
        &mut self,
        budgets: impl Iterator<Item = Budget>,
        needs: &Amounts,
        now: Now,
    ) -> Cover {
        if self.footing() != Footing::Shared {
            return Cover::Enough;
        }
        let active = self.active_mut();
        active.called_at_ms = now.monotonic_ms;
        active.peak = active.peak.most(*needs);
        let (mut short, mut hopeless, mut low) = (false, false, false);
        for budget in budgets {
            let (free, need) = (self.free(&budget, now), budget.resource.of(needs));
            if free < need {
                short = true;
                hopeless |= self.is_exhausted(budget.resource, now);
            } else {
                low |= free - need < self.active().slices[budget.resource.index()].target / 2;
            }
        }
        let ticket = Ticket(self.started + 1);
        let active = self.active_mut();
        if short && !hopeless {
            // Not their sum: what the store has left is for the other nodes' calls too, and who is still short asks again.
            active.needed = active.needed.most(*needs);
            Cover::Short(ticket)
        } else if low && !short && !std::mem::replace(&mut active.nudged, true) {
            Cover::Low
        } else {
            Cover::Enough
        }
    }

    /// Whether the request that a ticket names, or a later one, was answered.
    pub(super) const fn is_answered(&self, ticket: Ticket) -> bool {
        self.answered >= ticket.0
    }

    /// Whether the store should hear of this tenant on that occasion.
    pub(super) fn is_due_for(&self, occasion: Occasion, now: Now) -> bool {
        let is_known = self.booked != Booked::default();
        match occasion {
            Occasion::Asked => true,
            Occasion::Renewal => {
                let unheard_ms = now.monotonic_ms.saturating_sub(self.answered_at_ms);
                self.is_due()
                    || (self.has_shares(now) && unheard_ms > SHARE_RENEWAL_MS)
                    || (is_known && unheard_ms > REMIND_MS)
            }
            // The store may have lost what it acknowledged, or is to forget it.
            Occasion::Joining | Occasion::Leaving => self.is_due() || is_known || self.has_shares(now),
        }
    }

    fn is_due(&self) -> bool {
        let active = self.active();
        self.booked != self.acknowledged
            || active.lowered
            || active.slices.iter().any(|slice| slice.leased > 0 || slice.refused)
    }

    fn has_shares(&self, now: Now) -> bool {
        let active = self.active();
        active.share_until.is_ahead(now) && active.slices.iter().any(|slice| slice.share > 0)
    }

    /// Whether outage shares are of use: there were calls not long ago, and the node would serve them.
    pub(super) fn wants_shares(&self, now: Now) -> bool {
        let called_at_ms = self.active().called_at_ms;
        self.standing.uses_shares()
            && called_at_ms > 0
            && now.monotonic_ms.saturating_sub(called_at_ms) < OUTAGE_MS
    }

    /// Whether there were no calls for a while.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        now.monotonic_ms.saturating_sub(self.active().called_at_ms) > IDLE_MS
    }

    /// Starts a request; what is leased beyond its use is given back with it, and all that is unused when `idle`. So is every
    /// share, unless they are `shares` of use.
    pub(super) fn request(
        &mut self,
        budgets: impl Iterator<Item = Budget>,
        idle: bool,
        shares: bool,
        now: Now,
    ) -> [SliceRequest; RESOURCES] {
        self.started += 1;
        let shares = shares && self.active().share_until.is_ahead(now);
        let active = self.active_mut();
        active.nudged = false;
        active.lowered = false;
        let (needed, peak) = (std::mem::take(&mut active.needed), active.peak);
        active.peak = peak.less_an_eighth();
        let mut slices = [SliceRequest::default(); RESOURCES];
        for budget in budgets {
            let index = budget.resource.index();
            let unreported = u64::try_from(self.unreported(&budget)).unwrap_or(0);
            let is_over = !self.lease_until(budget.resource).is_ahead(now);
            let ahead = CALLS_AHEAD.saturating_mul(budget.resource.of(&peak).max(unreported));
            let slice = &mut self.active_mut().slices[index];
            let keep = if idle { 0 } else { slice.target };
            let free = slice.leased.saturating_sub(unreported).saturating_sub(budget.held);
            if is_over {
                // The others may have it by now.
                slice.leased -= free;
            } else if free > keep.saturating_mul(2) {
                // A little more than the target is kept, or each request would move some to and fro.
                slice.leased -= free - keep;
            }
            if !shares {
                slice.share = 0;
            }
            slices[index] = SliceRequest {
                limit: Some(budget.limit.min(MOST)),
                leased: slice.leased,
                held: budget.held,
                need: budget.resource.of(&needed).min(MOST),
                want: if idle { 0 } else { ahead.min(MOST) },
                share: slice.share,
                refused: std::mem::take(&mut slice.refused),
            };
        }
        // A limit that is no more needs no lease.
        for (slice, asked) in self.active_mut().slices.iter_mut().zip(&slices) {
            if asked.limit.is_none() {
                *slice = Slice::NONE;
            }
        }
        slices
    }

    pub(super) fn told(&self) -> Told {
        Told {
            sequence: self.started,
            answered: self.answered,
            generation: self.generation.clone(),
            used: self.booked,
            acknowledged: self.acknowledged,
        }
    }

    /// Takes an answer, unless a later request has been started since.
    pub(super) fn answer(&mut self, request: &LeaseRequest, reply: &LeaseReply, lifetime_ms: u64, now: Now) {
        if request.sequence != self.started {
            return;
        }
        self.answered = request.sequence;
        self.answered_at_ms = now.monotonic_ms;
        self.acknowledged = request.used;
        if self.generation != reply.generation {
            self.generation.clone_from(&reply.generation);
        }
        // From before the request was sent, so that it ends here before the store thinks that it has.
        let active = self.active_mut();
        active.known = true;
        active.lease_until = Until::after(request.made_at, lifetime_ms);
        active.share_until = Until::after(request.made_at, OUTAGE_MS);
        active.lowered =
            reply.slices.iter().zip(&request.slices).any(|(told, asked)| told.share < asked.share);
        for (slice, told) in active.slices.iter_mut().zip(&reply.slices) {
            let again = |wait: u64| if wait == 0 { 0 } else { now.monotonic_ms.saturating_add(wait) };
            *slice = Slice {
                leased: told.leased,
                share: told.share,
                // Since the request.
                refused: slice.refused,
                available: told.available,
                target: told.target,
                exhausted_until_ms: again(told.wait_ms.min(ASK_AGAIN_MS)),
                more_at_ms: again(told.wait_ms),
            };
        }
    }

    /// What is leased of a resource.
    pub(super) fn leased(&self, resource: Resource) -> u64 {
        self.active().slices[resource.index()].leased
    }

    fn active(&self) -> &Active {
        self.active.as_deref().unwrap_or(&RESTING)
    }

    fn active_mut(&mut self) -> &mut Active {
        self.active.get_or_insert_with(|| Box::new(Active::NEW))
    }
}
