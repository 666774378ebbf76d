//! One tenant's counters, and the one place where a call is let in or refused.
//!
//! Everything a decision needs is behind one short lock, so `settled + held ≤ limit` holds between any two calls
//! whatever their order. Under a strict ceiling a call holds its prompt and an output slice before a byte goes
//! upstream, and is settled to what it really used; under a soft one it holds its prompt only and may overshoot.

mod checkpoint;
mod leasing;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use super::Now;
use super::lease::Lease;
use super::period::{Period, Quota};
use super::window::Window;
use crate::units::{NanoDollars, Prices, TokenPrice, Tokens};

pub use checkpoint::{Checkpoint, OpenUse};
pub use leasing::LeasedTokens;

/// The fewest output tokens of one answer worth sending a call upstream for; also the fewest that Azure takes as the limit
/// of a response.
const LEAST_SLICE: u64 = 16;
/// A call that names no output limit gets this part of what is free, so that as many more find room beside it.
const UNNAMED_SHARE: u64 = 4;
/// A call that names its output limit gets this part of what is free when the limit is larger.
const NAMED_SHARE: u64 = 2;
/// What an answer is taken to need before the tenant has had one: most chat answers are no longer.
const UNKNOWN_OUTPUT: u64 = 256;
/// By which part of the difference the peak of the answers sinks towards a smaller one.
const PEAK_DECAY: u64 = 16;
/// How soon to come back when only open calls stand in the way: they may end at any moment.
const WAIT_FOR_OPEN_CALLS: Duration = Duration::from_secs(1);

/// Whether a budget may be overshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ceiling {
    /// Never: a call holds what it may use before it is forwarded.
    #[default]
    Strict,
    /// By calls already under way: a call is let in while its prompt fits, and settled afterwards.
    Soft,
}

/// What a tenant may use. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls let in within any minute.
    pub calls_per_minute: Option<NonZeroU32>,
    /// Tokens, prompt and answer, within any minute.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Calls open at once.
    pub concurrent_calls: Option<NonZeroU32>,
    /// Budgets of calendar periods.
    pub quotas: Box<[Quota]>,
    /// Whether the token limits may be overshot.
    pub ceiling: Ceiling,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The prompt's tokens, or an upper bound of them.
    pub prompt: Tokens,
    /// How many answers are to be written, each of at least one token.
    pub answers: u64,
    /// The most output tokens that the caller named, over all answers.
    pub output_named: Option<Tokens>,
    /// The most output tokens that the model gives, over all answers; zero where there is no output.
    pub output_most: Tokens,
    /// What the tokens cost.
    pub prices: Prices,
}

impl Ask {
    /// The most output tokens that the call may come to where no budget stands in the way.
    fn output_wanted(&self) -> Tokens {
        self.output_named.map_or(self.output_most, |named| named.min(self.output_most))
    }
}

/// What a call was let in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Output tokens held for it; under a soft ceiling none are, and the caller's own limit stands.
    pub output: Option<Tokens>,
    /// Calls that the tenant may still make at this moment.
    pub calls_left: Option<u32>,
    /// Tokens of the minute that are neither used nor held.
    pub tokens_left: Option<Tokens>,
}

/// Which limit stood in the way, and how long until it no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Calls per minute.
    Calls {
        /// Calls per minute.
        limit: u32,
        /// Until a call's slot leaves the window.
        wait: Duration,
    },
    /// Calls open at once.
    Concurrency {
        /// Calls at once.
        limit: u32,
        /// A guess: nobody knows when an open call ends.
        wait: Duration,
    },
    /// Tokens per minute.
    Tokens {
        /// Tokens per minute.
        limit: Tokens,
        /// Until enough slots have left the window.
        wait: Duration,
    },
    /// The prompt alone is larger than the minute's whole budget: waiting does not help.
    Prompt {
        /// Tokens per minute.
        limit: Tokens,
        /// What the prompt was estimated at.
        prompt: Tokens,
    },
    /// Tokens of a calendar period.
    TokenQuota {
        /// Tokens per period.
        limit: Tokens,
        /// Which period.
        period: Period,
        /// When the next one starts, in seconds since 1970-01-01 UTC.
        ends_at: u64,
    },
    /// Money of a calendar period.
    SpendQuota {
        /// Dollars per period.
        limit: NanoDollars,
        /// Which period.
        period: Period,
        /// When the next one starts, in seconds since 1970-01-01 UTC.
        ends_at: u64,
    },
    /// The fleet's store cannot say whether there is room.
    Unleased {
        /// A guess: nobody knows when it can again.
        wait: Duration,
    },
}

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

/// One call's part of an account's held amounts. Only [`Account`] changes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots among the open calls: one, or none once it was given back.
    slots: u32,
    prompt: Tokens,
    output: Tokens,
    /// Whether the output held is less than the call would have been free to produce.
    sliced: bool,
    cost: NanoDollars,
    /// Already booked of the output, and no longer held.
    spent: Used,
}

impl Held {
    /// Output tokens held or already spent: the most that the call may produce.
    #[must_use]
    pub fn output_allowed(&self) -> Tokens {
        self.output.saturating_add(self.spent.output)
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
    /// What open calls have spent already.
    spent: Used,
    /// How often anything has changed that is worth keeping.
    changes: u64,
    /// A slowly sinking peak of the outputs settled: what an answer of this tenant may well need.
    typical_output: u64,
    books: [Book; Period::ALL.len()],
    /// Where budgets are shared by a fleet: what this node may use of them.
    lease: Option<Box<Lease>>,
}

/// The settled use of one running period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    /// When the period ends, in seconds since 1970-01-01 UTC.
    pub ends_at: u64,
    /// Tokens used in it.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoDollars,
}

impl Account {
    /// Lets a call in, or says which limit stands in the way. What is let in holds tokens, money and a slot until
    /// [`Account::settle`] or [`Account::release`] is given the same [`Held`].
    ///
    /// # Errors
    /// [`Refused`] names the limit; nothing was counted then.
    pub fn admit(&self, limits: &Limits, ask: &Ask, now: Now) -> Result<(Held, Grant), Refused> {
        let mut state = self.state.lock();
        let calls_used = state.calls.used(now);
        if let Some(limit) = limits.calls_per_minute
            && calls_used >= u64::from(limit.get())
        {
            let wait = wait(&mut state.calls, now, calls_used + 1 - u64::from(limit.get()));
            return Err(Refused::Calls { limit: limit.get(), wait });
        }
        if let Some(limit) = limits.concurrent_calls
            && state.open_calls >= limit.get()
        {
            return Err(Refused::Concurrency { limit: limit.get(), wait: WAIT_FOR_OPEN_CALLS });
        }
        state.leased_call(limits, now)?;
        let output = state.output_slice(limits, ask, now)?;
        let held = Held {
            slots: 1,
            prompt: ask.prompt,
            output,
            sliced: output < ask.output_wanted(),
            cost: cost_bound(&ask.prices, ask.prompt, output),
            spent: Used::default(),
        };
        state.hold(held.tokens(), held.cost);
        state.held_prompts = state.held_prompts.saturating_add(held.prompt);
        state.open_calls += held.slots;
        state.calls.add(now, 1);
        if let Some(lease) = &mut state.lease {
            lease.booked.calls += 1;
        }
        let grant = Grant {
            output: match limits.ceiling {
                Ceiling::Strict => Some(output),
                Ceiling::Soft => None,
            },
            calls_left: limits.calls_per_minute.map(|limit| state.calls_left(limits, limit, now)),
            tokens_left: limits.tokens_per_minute.map(|limit| state.tokens_left(limits, limit, now)),
        };
        Ok((held, grant))
    }

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
        let mut state = self.state.lock();
        state.room(limits, Tokens::ZERO, more.get(), prices, now)?;
        state.leased_room(limits, Tokens::ZERO, more.get(), prices, now)?;
        let cost = cost_bound(prices, Tokens::ZERO, more);
        state.hold(more, cost);
        held.output = held.output.saturating_add(more);
        held.cost = held.cost.saturating_add(cost);
        Ok(())
    }

    /// Gives back what a prompt was held for beyond its closer estimate.
    pub fn shrink_prompt(&self, held: &mut Held, estimate: Tokens, prices: &Prices) {
        let surplus = held.prompt.saturating_sub(estimate);
        let cost = held.cost.saturating_sub(cost_bound(prices, held.prompt.min(estimate), held.output));
        held.prompt = held.prompt.saturating_sub(surplus);
        held.cost = held.cost.saturating_sub(cost);
        let mut state = self.state.lock();
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
    pub fn settle(&self, held: &Held, used: Used, now: Now) {
        let mut state = self.state.lock();
        state.free(held);
        state.book(used, held.spent, now);
        let output = used.output.get();
        // An answer that took all it was allowed would have gone on: nobody knows for how long.
        let cut = held.sliced && used.output >= held.output_allowed();
        state.learn(if cut { output.saturating_mul(2) } else { output });
    }

    /// Frees what a call held that used nothing beyond what was spent already.
    pub fn release(&self, held: &Held) {
        self.state.lock().free(held);
    }

    /// Tokens of the minute that are neither used nor held; `None` without such a limit.
    pub fn tokens_left(&self, limits: &Limits, now: Now) -> Option<Tokens> {
        limits.tokens_per_minute.map(|limit| self.state.lock().tokens_left(limits, limit, now))
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
    /// How many output tokens to hold for a call.
    fn output_slice(&mut self, limits: &Limits, ask: &Ask, now: Now) -> Result<Tokens, Refused> {
        let size = self.size(limits, ask)?;
        let room = self.room(limits, ask.prompt, size.enough, &ask.prices, now)?.get();
        let leased = self.leased_room(limits, ask.prompt, size.enough, &ask.prices, now)?;
        Ok(match limits.ceiling {
            Ceiling::Soft => Tokens::ZERO,
            Ceiling::Strict => Tokens::new(size.fair(room.min(leased.in_reach)).min(leased.free)),
        })
    }

    /// What a call would like to hold, and what it needs at least.
    fn size(&self, limits: &Limits, ask: &Ask) -> Result<Size, Refused> {
        let wanted = ask.output_wanted().get();
        let least = match limits.ceiling {
            Ceiling::Strict => LEAST_SLICE.max(ask.answers).min(wanted),
            Ceiling::Soft => 0,
        };
        let likely = self.likely_output();
        let mut enough = least;
        if let Some(limit) = limits.tokens_per_minute {
            let limit = u64::from(limit.get());
            if ask.prompt.get().saturating_add(least) > limit {
                return Err(Refused::Prompt { limit: Tokens::new(limit), prompt: ask.prompt });
            }
            if limits.ceiling == Ceiling::Strict {
                // An answer cut short at a sliver of the budget helps nobody: where the tenant's answers are known to
                // need more, the call waits for that much, up to a part of the budget that it is sure to see again.
                enough = likely.min(limit / 16).max(least).min(wanted).min(limit - ask.prompt.get());
            }
        }
        let share = if ask.output_named.is_some() { NAMED_SHARE } else { UNNAMED_SHARE };
        Ok(Size { wanted, enough, likely, share })
    }

    /// Notes what an answer needed.
    fn learn(&mut self, output: u64) {
        self.typical_output =
            self.typical_output.max(output) - self.typical_output.saturating_sub(output) / PEAK_DECAY;
    }

    /// What the next answer will probably not go beyond: the peak has sunk since it was seen, and answers vary.
    fn likely_output(&self) -> u64 {
        match self.typical_output {
            0 => UNKNOWN_OUTPUT,
            typical => typical.saturating_add(typical / 4),
        }
    }

    /// How many output tokens every limit has room for on this node beside a prompt; refused where that is fewer than `enough`.
    fn room(
        &mut self,
        limits: &Limits,
        prompt: Tokens,
        enough: u64,
        prices: &Prices,
        now: Now,
    ) -> Result<Tokens, Refused> {
        self.roll(now);
        let mut room = u64::MAX;
        for quota in &limits.quotas {
            match *quota {
                Quota::Tokens { limit, period } => {
                    let book = self.books[period.index()];
                    let taken = book.tokens.saturating_add(self.held).saturating_add(prompt);
                    room = room.min(fits(limit.get(), taken.get(), enough).ok_or(Refused::TokenQuota {
                        limit,
                        period,
                        ends_at: book.ends_at,
                    })?);
                }
                Quota::Spend { limit, period } => {
                    let book = self.books[period.index()];
                    let prompt_cost = cost_bound(prices, prompt, Tokens::ZERO);
                    let taken = book.cost.saturating_add(self.cost_held).saturating_add(prompt_cost);
                    let enough_cost = cost_bound(prices, Tokens::ZERO, Tokens::new(enough));
                    let free = fits(limit.get(), taken.get(), enough_cost.get())
                        .ok_or(Refused::SpendQuota { limit, period, ends_at: book.ends_at })?;
                    room = room.min(affordable(free, prices.output));
                }
            }
        }
        if let Some(limit) = limits.tokens_per_minute {
            let limit = u64::from(limit.get());
            let used = self.tokens.used(now);
            let taken = used.saturating_add(self.held.get()).saturating_add(prompt.get());
            room = room.min(match fits(limit, taken, enough) {
                Some(free) => free,
                None => {
                    let excess = taken.saturating_add(enough).saturating_sub(limit);
                    let wait = wait(&mut self.tokens, now, excess);
                    return Err(Refused::Tokens { limit: Tokens::new(limit), wait });
                }
            });
        }
        Ok(Tokens::new(room))
    }

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
        for book in &mut self.books {
            book.tokens = book.tokens.saturating_add(used.tokens).saturating_sub(spent.tokens);
            book.cost = book.cost.saturating_add(used.cost).saturating_sub(spent.cost);
        }
    }

    /// Starts the books anew whose period has ended. A clock set back changes nothing.
    fn roll(&mut self, now: Now) {
        // The hour ends first, so that one comparison settles the common case.
        if now.utc_seconds < self.books[Period::Hourly.index()].ends_at {
            return;
        }
        for (book, period) in self.books.iter_mut().zip(Period::ALL) {
            if now.utc_seconds >= book.ends_at {
                let (_, ends_at) = period.around(now.utc_seconds);
                *book = Book { ends_at, ..Book::default() };
            }
        }
    }
}

/// How long until so much has left a window.
fn wait(window: &mut Window, now: Now, excess: u64) -> Duration {
    window.wait_until_freed(now, excess).unwrap_or(WAIT_FOR_OPEN_CALLS)
}

/// The sizes of a call's output, in tokens.
struct Size {
    wanted: u64,
    /// What it is not worth letting in without.
    enough: u64,
    /// What it will probably not go beyond.
    likely: u64,
    /// Which part of what is free it gets.
    share: u64,
}

impl Size {
    /// What to hold of so much room.
    fn fair(&self, room: u64) -> u64 {
        // What answers are known to need goes before the share, as long as it leaves as much again.
        let fair = (room / self.share).max(self.likely.min(room / 2)).max(self.enough);
        self.wanted.min(fair).min(room)
    }
}

/// What is left of a limit when so much is taken, if that is enough.
const fn fits(limit: u64, taken: u64, enough: u64) -> Option<u64> {
    match limit.checked_sub(taken) {
        Some(free) if free >= enough => Some(free),
        _ => None,
    }
}

/// The most that a call can cost: no prompt token is cheaper for having been cached.
fn cost_bound(prices: &Prices, prompt: Tokens, output: Tokens) -> NanoDollars {
    let input = prices.input.max(prices.cached_input);
    Prices { input, ..*prices }.cost(prompt, Tokens::ZERO, output)
}

fn affordable(nano_dollars: u64, price: TokenPrice) -> u64 {
    let tokens = (u128::from(nano_dollars) * 1000).checked_div(u128::from(price.pico_dollars()));
    tokens.map_or(u64::MAX, |tokens| u64::try_from(tokens).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod fairness_tests;
#[cfg(test)]
mod tests;
