//! What a store keeps of an account, so that a restart gives nobody a fresh budget.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Account, Book, State, Used};
use crate::limits::window::{Slots, Window};
use crate::limits::{Correction, Now, Period};
use crate::names::DeploymentName;
use crate::units::{NanoDollars, Tokens};

/// An account at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// When it was, in seconds since 1970-01-01 UTC.
    pub utc_seconds: u64,
    /// Calls let in within the last minute, by age.
    pub calls: Slots,
    /// Tokens settled within the last minute, by age.
    pub tokens: Slots,
    /// Settled use of the running periods, in the order of [`Period::ALL`].
    pub books: [Book; Period::ALL.len()],
    /// The books that those took the place of; without an end where there are none.
    pub left: [Book; Period::ALL.len()],
    /// What was not settled.
    pub open: OpenUse,
    /// What an answer of this tenant may well need, in tokens.
    pub typical_output: u64,
    /// When the account of a removed tenant is over, in seconds since 1970-01-01 UTC; 0 of one that is there.
    pub over_at: u64,
    /// How far the estimates of its prompts have been from upstream's counts.
    pub corrections: BTreeMap<DeploymentName, Correction>,
    /// Which of the account's changes is the last that is in here.
    change: u64,
}

/// What calls have taken that were open at a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenUse {
    /// How many they are.
    pub calls: u64,
    /// What is held for their prompts.
    pub prompt: Tokens,
    /// What is held for their output.
    pub output: Tokens,
    /// What the held tokens may cost.
    pub cost: NanoDollars,
    /// Output already seen, which the window and the books have.
    pub spent: Tokens,
    /// What it cost.
    pub spent_cost: NanoDollars,
}

impl OpenUse {
    /// All that the calls may have used, if each used all that it held.
    #[must_use]
    pub const fn most(&self) -> Used {
        let output = self.output.saturating_add(self.spent);
        Used {
            tokens: self.prompt.saturating_add(output),
            output,
            cost: self.cost.saturating_add(self.spent_cost),
        }
    }
}

impl Checkpoint {
    /// A checkpoint as a store gives it back.
    #[must_use]
    pub fn new(
        utc_seconds: u64,
        windows: (Slots, Slots),
        books: [Book; Period::ALL.len()],
        open: OpenUse,
        typical_output: u64,
    ) -> Self {
        let (calls, tokens) = windows;
        Self {
            utc_seconds,
            calls,
            tokens,
            books,
            left: Default::default(),
            open,
            typical_output,
            over_at: 0,
            corrections: BTreeMap::new(),
            change: 0,
        }
    }

    /// Whether an account restored from it would be like a new one, or nobody needs it any more.
    #[must_use]
    pub fn is_over(&self, utc_seconds: u64) -> bool {
        let is_removed = self.over_at != 0 && self.over_at <= utc_seconds;
        self.open == OpenUse::default()
            && (is_removed || self.books.iter().chain(&self.left).all(|book| book.ends_at <= utc_seconds))
            && utc_seconds.saturating_sub(self.utc_seconds) > WINDOW_SECONDS
    }
}

impl Account {
    /// Takes a checkpoint, if there is anything that no store keeps yet. Where there is not, what only calls need is freed
    /// once the windows are empty.
    pub fn checkpoint(&self, now: Now) -> Option<Checkpoint> {
        let mut state = self.state.lock();
        if state.changes <= self.kept.load(Ordering::Relaxed) {
            state.rest(now);
            return None;
        }
        state.roll(now);
        Some(Checkpoint {
            utc_seconds: now.utc_seconds,
            calls: state.calls.slots(now),
            tokens: state.tokens.slots(now),
            books: state.books,
            left: state.left.as_deref().copied().unwrap_or_default(),
            open: OpenUse {
                calls: u64::from(state.open_calls),
                prompt: state.held_prompts,
                output: state.held.saturating_sub(state.held_prompts),
                cost: state.cost_held,
                spent: state.spent.tokens,
                spent_cost: state.spent.cost,
            },
            typical_output: state.typical_output,
            over_at: state.over_at,
            corrections: state.corrections.clone(),
            change: state.changes,
        })
    }

    /// Notes that a store keeps a checkpoint of this account.
    pub fn kept(&self, checkpoint: &Checkpoint) {
        self.kept.fetch_max(checkpoint.change, Ordering::Relaxed);
    }

    /// Notes that the store has nothing of this account any more.
    pub fn forgotten(&self) {
        self.kept.store(0, Ordering::Relaxed);
    }

    /// Whether a store keeps all of it.
    pub fn is_kept(&self) -> bool {
        let state = self.state.lock();
        state.changes <= self.kept.load(Ordering::Relaxed)
    }

    /// The account as it goes on after a crash or a stop. What open calls held counts as used: nobody will know better.
    #[must_use]
    pub fn restore(checkpoint: &Checkpoint, now: Now) -> Self {
        let Checkpoint {
            utc_seconds,
            calls,
            tokens,
            books,
            left,
            open,
            typical_output,
            over_at,
            corrections,
            change: _,
        } = checkpoint;
        let elapsed = now.utc_seconds.saturating_sub(*utc_seconds);
        let held = open.prompt.saturating_add(open.output);
        let mut state = State {
            calls: Window::restore(calls, elapsed, now),
            tokens: Window::restore(tokens, elapsed, now),
            typical_output: *typical_output,
            books: *books,
            left: left.iter().any(|book| book.ends_at != 0).then(|| Box::new(*left)),
            over_at: *over_at,
            corrections: corrections.clone(),
            changes: 1,
            ..State::default()
        };
        if elapsed <= WINDOW_SECONDS {
            state.tokens.add(now, held.get());
        }
        state.write_down(Used { tokens: held, output: Tokens::ZERO, cost: open.cost }, Used::default());
        state.roll(now);
        Self { state: Mutex::new(state), kept: AtomicU64::new(0) }
    }
}

/// How long a checkpoint's windows count, with what two clocks can be apart.
pub(super) const WINDOW_SECONDS: u64 = 64;

#[cfg(test)]
mod tests;
