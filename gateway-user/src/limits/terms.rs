//! The terms on which calls are let in: what a tenant may use, what a call asks for, and what it is told.

use std::num::NonZeroU32;
use std::time::Duration;

use super::period::{Period, Quota};
use crate::units::{NanoDollars, Prices, Tokens};

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
    pub(super) fn output_wanted(&self) -> Tokens {
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
    /// The prompt, with a token for each answer, is larger than the minute's whole budget: waiting does not help.
    Prompt {
        /// Tokens per minute.
        limit: Tokens,
        /// What the prompt was estimated at.
        prompt: Tokens,
        /// How many answers were asked for.
        answers: u64,
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
