//! The side of an account that faces a fleet: what of its budgets is leased to this node.

use std::sync::Arc;
use std::time::Duration;

use super::room::{affordable, fits};
use super::rough::Rough;
use super::{Account, Ask, Ceiling, Limits, Refused, State, WAIT_FOR_OPEN_CALLS};
use crate::limits::Now;
use crate::limits::lease::{
    Amounts, Budget, Cover, Footing, Lease, LeaseReply, LeaseRequest, Minute, Occasion, Resource, Standing,
    Ticket, Told,
};
use crate::limits::period::{Period, Quota};
use crate::limits::window::Window;
use crate::units::{Prices, Tokens};

/// How soon to come back when the fleet's store could not be asked.
const WAIT_FOR_STORE: Duration = Duration::from_secs(1);
/// The longest that a minute's limit makes anyone wait; the store may count a moment longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A call is let in without asking for a larger lease when what there is has room for so many typical answers.
const TYPICAL_OUTPUTS: u64 = 2;

/// What is leased of a tenant's minute of tokens, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedTokens {
    /// What is leased, used and held included.
    pub leased: u64,
    /// What this node may use beside that in any minute while the store is away.
    pub outage_share: u64,
    /// What this node has used or holds beyond what the store keeps for it.
    pub overshoot_bound: u64,
}

impl Account {
    /// The account of a tenant whose budgets a fleet shares.
    #[must_use]
    pub fn leased(standing: Arc<Standing>) -> Self {
        let account = Self::default();
        account.state.lock().lease = Some(Box::new(Lease::new(standing)));
        account
    }

    /// Whether this node has leased enough to let a call in. What local counters refuse anyway is [`Cover::Enough`].
    pub fn cover(&self, limits: &Limits, ask: &Ask, now: Now) -> Cover {
        let state = &mut *self.decide();
        let needs = state.needs(limits, ask, now);
        needs.map_or(Cover::Enough, |needs| state.covered(limits, &needs, now))
    }

    /// Whether this node has leased enough to hold `more` output tokens for an open call.
    pub fn cover_growth(&self, limits: &Limits, more: Tokens, prices: &Prices, now: Now) -> Cover {
        let cost = prices.cost_bound(Tokens::ZERO, more).get();
        self.decide().covered(limits, &Amounts { calls: 0, tokens: more.get(), cost }, now)
    }

    /// Whether the request to the store that a ticket names was answered.
    pub fn is_answered(&self, ticket: Ticket) -> bool {
        self.state.lock().lease.as_ref().is_none_or(|lease| lease.is_answered(ticket))
    }

    /// Whether the store should hear of this tenant: there is use to report or a lease to renew. Where there is not, and
    /// the tenant makes no calls, what only calls need is freed.
    pub fn is_lease_due(&self, occasion: Occasion, now: Now) -> bool {
        let mut state = self.state.lock();
        let due = state.lease.as_ref().is_some_and(|lease| lease.is_due_for(occasion, now));
        if !due {
            state.rest(now);
        }
        due
    }

    /// Starts a request to the store; `None` when there is nothing to tell it or to ask of it.
    pub fn lease_request(&self, limits: &Limits, occasion: Occasion, now: Now) -> Option<LeaseRequest> {
        let state = &mut *self.state.lock();
        state.roll(now);
        let sums = state.sums(now);
        let lease = state.lease.as_mut()?;
        if !lease.is_due_for(occasion, now) {
            return None;
        }
        let leaving = occasion == Occasion::Leaving;
        // An open stream may have to grow, so that its tenant is not idle.
        let idle = leaving || (lease.is_idle(now) && sums.held == 0);
        let shares = !leaving && lease.wants_shares(now);
        let slices = lease.request(sums.budgets(limits), idle, shares, now);
        let Told { sequence, answered, generation, used, acknowledged } = lease.told();
        Some(LeaseRequest {
            sequence,
            answered,
            generation,
            used,
            acknowledged,
            window: [sums.calls.used, sums.tokens.used],
            periods: sums.periods,
            slices,
            idle,
            shares,
            leaving,
            made_at: now,
        })
    }

    /// Slots for calls open at once that are leased; `None` without a fleet or without such a limit.
    pub fn leased_open_calls(&self, limits: &Limits) -> Option<u64> {
        limits.concurrent_calls?;
        self.state.lock().lease.as_ref().map(|lease| lease.leased(Resource::OpenCalls))
    }

    /// Takes the store's answer; it holds for `lifetime` from when the request was made.
    pub fn lease_reply(&self, request: &LeaseRequest, reply: &LeaseReply, lifetime: Duration, now: Now) {
        if let Some(lease) = &mut self.state.lock().lease {
            lease.answer(request, reply, u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX), now);
        }
    }

    /// What is leased of the minute's tokens; `None` without a fleet or without such a limit.
    pub fn leased_tokens(&self, limits: &Limits, now: Now) -> Option<LeasedTokens> {
        let state = &mut *self.decide();
        let sums = state.sums(now);
        let lease = state.lease.as_ref()?;
        let budget = sums.token_budgets(limits).find(|budget| budget.resource == Resource::Tokens)?;
        Some(LeasedTokens {
            leased: lease.leased(Resource::Tokens),
            outage_share: lease.outage_share(Resource::Tokens, now),
            overshoot_bound: lease.overdrawn(&budget, now),
        })
    }
}

/// How many output tokens a lease has room for.
pub(super) struct LeasedRoom {
    /// In what is leased.
    pub(super) free: u64,
    /// In what is leased and what the fleet's store could lease still.
    pub(super) in_reach: u64,
}

/// What is used and held on this node.
struct Sums {
    calls: Minute,
    open_calls: u64,
    tokens: Minute,
    held: u64,
    cost_held: u64,
    periods: [[u64; 2]; Period::ALL.len()],
}

impl Sums {
    /// What limits there are of what a call uses, and how this node stands with each.
    fn budgets<'a>(&'a self, limits: &'a Limits) -> impl Iterator<Item = Budget> + 'a {
        self.call_budgets(limits).chain(self.token_budgets(limits))
    }

    /// Those of [`Self::budgets`] that count calls.
    fn call_budgets(&self, limits: &Limits) -> impl Iterator<Item = Budget> + use<> {
        let calls = limits.calls_per_minute.map(|limit| Budget {
            resource: Resource::Calls,
            limit: u64::from(limit.get()),
            held: 0,
            minute: self.calls,
        });
        let open_calls = limits.concurrent_calls.map(|limit| Budget {
            resource: Resource::OpenCalls,
            limit: u64::from(limit.get()),
            held: self.open_calls,
            minute: Minute::default(),
        });
        calls.into_iter().chain(open_calls)
    }

    /// Those of [`Self::budgets`] that count tokens and money.
    fn token_budgets<'a>(&'a self, limits: &'a Limits) -> impl Iterator<Item = Budget> + 'a {
        let quotas = limits.quotas.iter().map(|quota| match *quota {
            Quota::Tokens { limit, period } => Budget {
                resource: Resource::PeriodTokens(period),
                limit: limit.get(),
                held: self.held,
                minute: Minute::default(),
            },
            Quota::Spend { limit, period } => Budget {
                resource: Resource::PeriodCost(period),
                limit: limit.get(),
                held: self.cost_held,
                minute: Minute::default(),
            },
        });
        let minute = limits.tokens_per_minute.map(|limit| Budget {
            resource: Resource::Tokens,
            limit: u64::from(limit.get()),
            held: self.held,
            minute: self.tokens,
        });
        quotas.chain(minute)
    }
}

impl State {
    fn sums(&mut self, now: Now) -> Sums {
        let over_since_ms = self.lease.as_ref().and_then(|lease| lease.over_since_ms(now));
        let minute = |window: &mut Window| Minute {
            used: window.used(now),
            late: over_since_ms.map_or(0, |since_ms| window.used_since(now, since_ms)),
        };
        Sums {
            calls: minute(&mut self.calls),
            open_calls: u64::from(self.open_calls),
            tokens: minute(&mut self.tokens),
            held: self.held.get(),
            cost_held: self.cost_held.get(),
            periods: self.books.map(|book| [book.tokens.get(), book.cost.get()]),
        }
    }

    /// What a call should find leased; `None` when it is refused whatever is.
    fn needs(&mut self, limits: &Limits, ask: &Ask, now: Now) -> Option<Amounts> {
        let size = self.size(limits, ask).ok()?;
        let room = self.room(limits, ask.prompt, size.enough, Rough::default(), &ask.prices, now).ok()?.get();
        let sums = self.sums(now);
        let lease = self.lease.as_ref()?;
        let output = match limits.ceiling {
            Ceiling::Soft => 0,
            Ceiling::Strict => {
                let reach = sums.token_budgets(limits).fold(room, |room, budget| {
                    room.min(room_in(lease.reach(&budget, now), &budget, ask.prompt, &ask.prices))
                });
                let fair = size.fair(reach.max(size.enough));
                match self.typical_output {
                    0 => fair,
                    typical => fair.min(typical.saturating_mul(TYPICAL_OUTPUTS).max(size.enough)),
                }
            }
        };
        Some(Amounts {
            calls: 1,
            tokens: ask.prompt.get().saturating_add(output),
            cost: ask.prices.cost_bound(ask.prompt, Tokens::new(output)).get(),
        })
    }

    fn covered(&mut self, limits: &Limits, needs: &Amounts, now: Now) -> Cover {
        let sums = self.sums(now);
        let Some(lease) = &mut self.lease else { return Cover::Enough };
        lease.cover(sums.budgets(limits), needs, now)
    }

    /// Lets one call more in, as far as the lease goes.
    pub(super) fn leased_call(&mut self, limits: &Limits, now: Now) -> Result<(), Refused> {
        if self.lease.is_none() {
            return Ok(());
        }
        let sums = self.sums(now);
        let Some(lease) = &self.lease else { return Ok(()) };
        if lease.footing() == Footing::Refusing {
            return Err(Refused::Unleased { wait: WAIT_FOR_STORE });
        }
        let short = sums.call_budgets(limits).find(|budget| lease.free(budget, now) == 0);
        short.map_or(Ok(()), |budget| Err(self.unleased(&budget, 1, now)))
    }

    /// How many output tokens the lease has room for beside a prompt; refused where that is fewer than `enough`.
    pub(super) fn leased_room(
        &mut self,
        limits: &Limits,
        prompt: Tokens,
        enough: u64,
        prices: &Prices,
        now: Now,
    ) -> Result<LeasedRoom, Refused> {
        let mut room = LeasedRoom { free: u64::MAX, in_reach: u64::MAX };
        if self.lease.is_none() {
            return Ok(room);
        }
        let sums = self.sums(now);
        for budget in sums.token_budgets(limits) {
            let Some(lease) = &self.lease else { return Ok(room) };
            let free = lease.free(&budget, now);
            let (taken, least) = match budget.resource {
                Resource::PeriodCost(_) => {
                    let of = |prompt, output| prices.cost_bound(prompt, output).get();
                    (of(prompt, Tokens::ZERO), of(Tokens::ZERO, Tokens::new(enough)))
                }
                Resource::Calls | Resource::OpenCalls | Resource::Tokens | Resource::PeriodTokens(_) => {
                    (prompt.get(), enough)
                }
            };
            if fits(free, taken, least).is_none() {
                let short = taken.saturating_add(least).saturating_sub(free);
                return Err(self.unleased(&budget, short, now));
            }
            room.free = room.free.min(room_in(free, &budget, prompt, prices));
            let reach = lease.reach(&budget, now);
            room.in_reach = room.in_reach.min(room_in(reach, &budget, prompt, prices));
        }
        Ok(room)
    }

    /// The refusal of a call for which a budget's lease is `short` of so much.
    fn unleased(&mut self, budget: &Budget, short: u64, now: Now) -> Refused {
        if let Some(lease) = &mut self.lease {
            lease.refuse(budget.resource);
        }
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_used_up(budget.resource, now)) else {
            return Refused::Unleased { wait: WAIT_FOR_STORE };
        };
        let more_in = lease.more_in_ms(budget.resource, now).map(Duration::from_millis);
        // Others were quicker to take what the store had; it is asked again as soon as it helps.
        let more_in = more_in.or_else(|| (lease.footing() == Footing::Shared).then_some(WAIT_FOR_STORE));
        let count = || u32::try_from(budget.limit).unwrap_or(u32::MAX);
        match budget.resource {
            Resource::Calls => {
                let wait = more_in.unwrap_or_else(|| super::wait(&mut self.calls, now, short));
                Refused::Calls { limit: count(), wait: wait.min(LONGEST_WAIT) }
            }
            Resource::OpenCalls => Refused::Concurrency { limit: count(), wait: WAIT_FOR_OPEN_CALLS },
            Resource::Tokens => {
                let wait = more_in.unwrap_or_else(|| super::wait(&mut self.tokens, now, short));
                Refused::Tokens { limit: Tokens::new(budget.limit), wait: wait.min(LONGEST_WAIT) }
            }
            Resource::PeriodTokens(period) => {
                let ends_at = self.books[period.index()].ends_at;
                Refused::TokenQuota { limit: Tokens::new(budget.limit), period, ends_at }
            }
            Resource::PeriodCost(period) => {
                let ends_at = self.books[period.index()].ends_at;
                Refused::SpendQuota { limit: crate::units::NanoDollars::new(budget.limit), period, ends_at }
            }
        }
    }

    /// Calls of the minute that this node could still let in.
    pub(super) fn calls_in_reach(&mut self, limits: &Limits, now: Now) -> u64 {
        if self.lease.is_none() {
            return u64::MAX;
        }
        self.in_reach(Resource::Calls, limits, now)
    }

    /// Tokens of the minute that this node could still hold.
    pub(super) fn tokens_in_reach(&mut self, limits: &Limits, now: Now) -> u64 {
        if self.lease.is_none() {
            return u64::MAX;
        }
        self.in_reach(Resource::Tokens, limits, now)
    }

    fn in_reach(&mut self, resource: Resource, limits: &Limits, now: Now) -> u64 {
        let sums = self.sums(now);
        let budget = sums.budgets(limits).find(|budget| budget.resource == resource);
        self.lease.as_ref().zip(budget).map_or(u64::MAX, |(lease, budget)| lease.reach(&budget, now))
    }
}

/// How many output tokens fit into what is free of a budget, beside a prompt.
fn room_in(free: u64, budget: &Budget, prompt: Tokens, prices: &Prices) -> u64 {
    match budget.resource {
        Resource::Calls | Resource::OpenCalls => u64::MAX,
        Resource::Tokens | Resource::PeriodTokens(_) => free.saturating_sub(prompt.get()),
        Resource::PeriodCost(_) => {
            let prompt = prices.cost_bound(prompt, Tokens::ZERO).get();
            affordable(free.saturating_sub(prompt), prices.output)
        }
    }
}
