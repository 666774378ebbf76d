//! One tenant's counters, and the one place where a call is let in or refused.
//!
//! Everything a decision needs is behind one short lock, so `settled + held ≤ limit` holds between any two calls
//! whatever their order. Under a strict ceiling a call holds its prompt and an output slice before a byte goes
//! upstream, and is settled to what it really used; under a soft one it holds its prompt only and may overshoot.

mod adjust;
mod admit;
mod checkpoint;
mod corrections;
mod leasing;
mod periods;
mod removal;
mod room;
mod rough;
mod slice;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Now;
use super::correction::Correction;
use super::lease::Lease;
use super::period::Period;
use super::terms::{Ask, Ceiling, Limits, Refused};
use super::window::Window;
use crate::names::DeploymentName;
use crate::units::{NanoDollars, Prices, Tokens};
use rough::Rough;

pub use checkpoint::{Checkpoint, OpenUse};
pub use leasing::LeasedTokens;
pub use periods::Book;

/// How soon to come back when only open calls stand in the way: they may end at any moment.
const WAIT_FOR_OPEN_CALLS: Duration = Duration::from_secs(1);

/// What a call used, in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Prompt and output tokens.
    pub tokens: Tokens,
    /// The output tokens among them.
    pub output: Tokens,
    /// What they cost.
    pub cost: NanoDollars,
}

impl Used {
    const fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            output: self.output.saturating_add(other.output),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    const fn less(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            output: self.output.saturating_sub(other.output),
            cost: self.cost.saturating_sub(other.cost),
        }
    }
}

/// Whether a call's output is known, so that it tells what answers need, or was assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Upstream reported it, or it passed and was counted.
    Known,
    /// Nobody can tell, or there was no answer.
    Assumed,
}

/// One call's part of an account's held amounts. Only [`Account`] changes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots among the open calls: one, or none once it was given back.
    slots: u32,
    prompt: Tokens,
    output: Tokens,
    /// What the call will probably not write more than, where nothing is held for it.
    likely: Tokens,
    /// Whether the output held is less than the call would have been free to produce.
    sliced: bool,
    cost: NanoDollars,
    /// What of it is held for a prompt at its bytes.
    by_bytes: Rough,
    /// Already booked of the output, and no longer held.
    spent: Used,
}

impl Held {
    /// Takes the slot out, so that it outlives the rest.
    pub(super) fn take_slot(&mut self) -> Self {
        Self { slots: std::mem::take(&mut self.slots), ..Self::default() }
    }

    /// Output tokens held or already spent: the most that the call may produce.
    #[must_use]
    pub fn output_allowed(&self) -> Tokens {
        self.output.saturating_add(self.spent.output)
    }

    /// What the call is taken to have written where nobody can tell: all that it may, or under a soft ceiling what an answer
    /// probably needs.
    #[must_use]
    pub fn output_assumed(&self) -> Tokens {
        self.output_allowed().max(self.likely)
    }

    fn tokens(&self) -> Tokens {
        self.prompt.saturating_add(self.output)
    }
}

/// A tenant's counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Calls let in within the last minute.
    pub calls_in_window: u64,
    /// Tokens settled within the last minute.
    pub tokens_in_window: Tokens,
    /// Tokens that open calls hold.
    pub tokens_held: Tokens,
    /// Money that open calls hold.
    pub cost_held: NanoDollars,
    /// Open calls.
    pub open_calls: u32,
    /// Settled use of the running periods, in the order of [`Period::ALL`].
    pub periods: [Used; Period::ALL.len()],
}

/// One tenant's counters.
#[derive(Debug, Default)]
pub struct Account {
    state: Mutex<State>,
    /// The last of the state's changes that a store keeps.
    kept: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    calls: Window,
    tokens: Window,
    held: Tokens,
    cost_held: NanoDollars,
    open_calls: u32,
    /// The prompts' part of `held`.
    held_prompts: Tokens,
    /// What of it is held for prompts at their bytes, which is several times what they need.
    by_bytes: Rough,
    /// What open calls have spent already.
    spent: Used,
    /// How often anything has changed that is worth keeping.
    changes: u64,
    /// A slowly sinking peak of the outputs settled: what an answer of this tenant may well need.
    typical_output: u64,
    books: [Book; Period::ALL.len()],
    /// The books that the running ones took the place of, which go on beside them: see [`State::roll`].
    left: Option<Box<[Book; Period::ALL.len()]>>,
    /// Of a tenant that is removed, when the last period has ended that its limits were about, in seconds since
    /// 1970-01-01 UTC; 0 of one that is there.
    over_at: u64,
    /// How far the estimates of its prompts have been from upstream's counts.
    corrections: BTreeMap<DeploymentName, Correction>,
    /// Where budgets are shared by a fleet: what this node may use of them.
    lease: Option<Box<Lease>>,
}

impl Account {
    /// Holds `more` output tokens for an open call.
    ///
    /// # Errors
    /// [`Refused`] names the limit that has no room for them; nothing was held then.
    pub fn grow(
        &self,
        limits: &Limits,
        held: &mut Held,
        more: Tokens,
        prices: &Prices,
        now: Now,
    ) -> Result<(), Refused> {
        let mut state = self.decide();
        state.room(limits, Tokens::ZERO, more.get(), Rough::default(), prices, now)?;
        state.leased_room(limits, Tokens::ZERO, more.get(), prices, now)?;
        let cost = prices.cost_bound(Tokens::ZERO, more);
        state.hold(more, cost);
        held.output = held.output.saturating_add(more);
        held.cost = held.cost.saturating_add(cost);
        Ok(())
    }

    /// Gives back what a prompt was held for beyond its closer estimate.
    pub fn shrink_prompt(&self, held: &mut Held, estimate: Tokens, prices: &Prices) {
        let surplus = held.prompt.saturating_sub(estimate);
        let cost = held.cost.saturating_sub(prices.cost_bound(held.prompt.min(estimate), held.output));
        held.prompt = held.prompt.saturating_sub(surplus);
        held.cost = held.cost.saturating_sub(cost);
        let by_bytes = std::mem::take(&mut held.by_bytes);
        let mut state = self.state.lock();
        state.by_bytes = state.by_bytes.less(by_bytes);
        state.unhold(surplus, cost);
        state.held_prompts = state.held_prompts.saturating_sub(surplus);
    }

    /// Books output that has been seen on a stream, at the moment it was seen, instead of holding it to the end.
    pub fn spend(&self, held: &mut Held, output: Tokens, prices: &Prices, now: Now) {
        let cost = prices.cost(Tokens::ZERO, Tokens::ZERO, output);
        let (from_hold, cost_from_hold) = (output.min(held.output), cost.min(held.cost));
        held.output = held.output.saturating_sub(from_hold);
        held.cost = held.cost.saturating_sub(cost_from_hold);
        held.spent.tokens = held.spent.tokens.saturating_add(output);
        held.spent.output = held.spent.output.saturating_add(output);
        held.spent.cost = held.spent.cost.saturating_add(cost);
        let mut state = self.state.lock();
        state.unhold(from_hold, cost_from_hold);
        let spent = Used { tokens: output, output, cost };
        state.spent = state.spent.plus(spent);
        state.book(spent, Used::default(), now);
    }

    /// Books what a call used and frees what it held.
    ///
    /// A use beyond what was held is booked all the same: it is a debt that the window and the periods carry.
    pub fn settle(&self, held: &Held, used: Used, output: Output, now: Now) {
        let mut state = self.state.lock();
        state.free(held);
        state.book(used, held.spent, now);
        if output == Output::Known {
            let needed = used.output.get();
            // An answer that took all it was allowed would have gone on: nobody knows for how long.
            let cut = held.sliced && used.output >= held.output_allowed();
            state.learn(if cut { needed.saturating_mul(2) } else { needed });
        }
    }

    /// Frees what a call held that used nothing beyond what was spent already.
    pub fn release(&self, held: &Held) {
        self.state.lock().free(held);
    }

    /// Tokens of the minute that are neither used nor held; `None` without such a limit.
    pub fn tokens_left(&self, limits: &Limits, now: Now) -> Option<Tokens> {
        limits.tokens_per_minute.map(|limit| self.decide().tokens_left(limits, limit, now))
    }

    /// Locks the state for one decision. How the node stands with the fleet's store is read here, once: it may change at
    /// any moment, and a decision that reads it twice could follow neither.
    fn decide(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if let Some(lease) = &mut state.lease {
            lease.read_footing();
        }
        state
    }

    /// Reads every counter.
    pub fn counters(&self, now: Now) -> Counters {
        let mut state = self.state.lock();
        state.roll(now);
        Counters {
            calls_in_window: state.calls.used(now),
            tokens_in_window: Tokens::new(state.tokens.used(now)),
            tokens_held: state.held,
            cost_held: state.cost_held,
            open_calls: state.open_calls,
            periods: state.books.map(|book| Used {
                tokens: book.tokens,
                output: Tokens::ZERO,
                cost: book.cost,
            }),
        }
    }
}

impl State {
    fn calls_left(&mut self, limits: &Limits, limit: NonZeroU32, now: Now) -> u32 {
        let left = u64::from(limit.get()).saturating_sub(self.calls.used(now));
        u32::try_from(left.min(self.calls_in_reach(limits, now))).unwrap_or(u32::MAX)
    }

    fn tokens_left(&mut self, limits: &Limits, limit: NonZeroU32, now: Now) -> Tokens {
        let left =
            u64::from(limit.get()).saturating_sub(self.tokens.used(now)).saturating_sub(self.held.get());
        Tokens::new(left.min(self.tokens_in_reach(limits, now)))
    }

    fn hold(&mut self, tokens: Tokens, cost: NanoDollars) {
        self.changes += 1;
        self.held = self.held.saturating_add(tokens);
        self.cost_held = self.cost_held.saturating_add(cost);
    }

    fn unhold(&mut self, tokens: Tokens, cost: NanoDollars) {
        self.changes += 1;
        self.held = self.held.saturating_sub(tokens);
        self.cost_held = self.cost_held.saturating_sub(cost);
    }

    fn free(&mut self, held: &Held) {
        self.unhold(held.tokens(), held.cost);
        self.held_prompts = self.held_prompts.saturating_sub(held.prompt);
        self.by_bytes = self.by_bytes.less(held.by_bytes);
        self.spent = self.spent.less(held.spent);
        self.open_calls = self.open_calls.saturating_sub(held.slots);
    }

    /// Books `used` less what of it was `spent` before. The window keeps a surplus that was spent, since nobody knows
    /// which slot it is in; the periods are put right.
    fn book(&mut self, used: Used, spent: Used, now: Now) {
        let beyond = used.tokens.saturating_sub(spent.tokens);
        self.tokens.add(now, beyond.get());
        if let Some(lease) = &mut self.lease {
            lease.book(beyond, [used.tokens, spent.tokens], [used.cost, spent.cost]);
        }
        self.roll(now);
        self.write_down(used, spent);
    }

    /// Frees what only a tenant needs that makes calls, if this one makes none.
    fn rest(&mut self, now: Now) {
        self.calls.rest(now);
        self.tokens.rest(now);
        if let Some(lease) = &mut self.lease {
            lease.rest(now);
        }
    }
}

/// How long until so much has left a window.
fn wait(window: &mut Window, now: Now, excess: u64) -> Duration {
    window.wait_until_freed(now, excess).unwrap_or(WAIT_FOR_OPEN_CALLS)
}

#[cfg(test)]
mod fairness_tests;
#[cfg(test)]
mod tests;
