//! Prompts that are held at their bytes: what is too much of them.
//!
//! A prompt has three or four bytes a token, so that most of such a hold is for nothing. That harms nobody as long as much
//! more than it is free. All of a tenant's together may take a [`PART`]th of what is left of each of its limits: so a
//! twentieth of a limit is never lost to them, and a tenant without such limits never has a prompt counted.

use super::{Ask, State};
use crate::units::{NanoDollars, Tokens};

/// What is held at bytes is at most so small a part of what is left beside it.
const PART: u64 = 16;

/// Prompt tokens held at bytes, and what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rough {
    pub(super) tokens: Tokens,
    pub(super) cost: NanoDollars,
}

impl Rough {
    pub(super) fn of(ask: &Ask) -> Self {
        Self { tokens: ask.prompt, cost: ask.prices.cost_bound(ask.prompt, Tokens::ZERO) }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self { tokens: self.tokens.saturating_add(other.tokens), cost: self.cost.saturating_add(other.cost) }
    }

    pub(super) const fn less(self, other: Self) -> Self {
        Self { tokens: self.tokens.saturating_sub(other.tokens), cost: self.cost.saturating_sub(other.cost) }
    }

    const fn times(self, factor: u64) -> Self {
        Self {
            tokens: self.tokens.saturating_mul(factor),
            cost: NanoDollars::new(self.cost.get().saturating_mul(factor)),
        }
    }
}

impl State {
    /// What has to be left of each limit for one prompt more to be held at its bytes; nothing for a prompt that is not.
    pub(super) fn spare_for(&self, prompt: Rough) -> Rough {
        if prompt == Rough::default() { prompt } else { self.by_bytes.plus(prompt).times(PART) }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limits::{Account, Ceiling, Limits, Now, Period, Quota, Used};
    use crate::units::{Prices, TokenPrice};

    const NOW: Now = Now { monotonic_ms: 5_000, utc_seconds: 1_709_212_455 };

    fn ask(prompt: u64) -> Ask {
        Ask {
            prompt: Tokens::new(prompt),
            answers: 1,
            output_named: Some(Tokens::new(16)),
            output_most: Tokens::new(16),
            prices: Prices {
                input: TokenPrice::from_pico_dollars(1_000_000),
                cached_input: TokenPrice::from_pico_dollars(500_000),
                output: TokenPrice::from_pico_dollars(4_000_000),
            },
        }
    }

    fn tokens_per_minute(limit: u32) -> Limits {
        Limits { tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() }
    }

    #[test]
    fn a_prompt_is_held_at_its_bytes_while_much_more_is_free() {
        let account = Account::default();
        let limits = tokens_per_minute(17_100);
        let (first, _) = account.admit_by_bytes(&limits, &ask(500), NOW).unwrap().unwrap();
        let (second, _) = account.admit_by_bytes(&limits, &ask(450), NOW).unwrap().unwrap();
        assert_eq!(account.admit_by_bytes(&limits, &ask(100), NOW), Ok(None), "all of them count");
        assert!(account.admit(&limits, &ask(100), NOW).is_ok(), "though there is room");
        account.release(&first);
        account.admit_by_bytes(&limits, &ask(100), NOW).unwrap().unwrap();
        account.release(&second);
        assert_eq!(account.admit_by_bytes(&limits, &ask(1000), NOW), Ok(None));
    }

    #[test]
    fn a_prompt_that_was_counted_after_all_stands_in_nobodys_way() {
        let account = Account::default();
        let limits = tokens_per_minute(17_100);
        let (mut held, _) = account.admit_by_bytes(&limits, &ask(900), NOW).unwrap().unwrap();
        assert_eq!(account.admit_by_bytes(&limits, &ask(900), NOW), Ok(None));
        account.shrink_prompt(&mut held, Tokens::new(200), &ask(0).prices);
        account.admit_by_bytes(&limits, &ask(900), NOW).unwrap().unwrap();
        assert_eq!(account.state.lock().by_bytes, Rough::of(&ask(900)));
    }

    #[test]
    fn every_limit_counts_and_without_any_nothing_is_counted() {
        for ceiling in [Ceiling::Strict, Ceiling::Soft] {
            let with = |quotas: Vec<Quota>| Limits { quotas: quotas.into(), ceiling, ..Limits::default() };
            let free = with(Vec::new());
            assert!(Account::default().admit_by_bytes(&free, &ask(1 << 40), NOW).unwrap().is_some());
            let tokens = with(vec![Quota::Tokens { limit: Tokens::new(17_100), period: Period::Daily }]);
            let dollars =
                with(vec![Quota::Spend { limit: NanoDollars::new(17_100_000), period: Period::Daily }]);
            for limits in [&tokens, &dollars] {
                let account = Account::default();
                assert!(account.admit_by_bytes(limits, &ask(1000), NOW).unwrap().is_some(), "{limits:?}");
                assert_eq!(account.admit_by_bytes(limits, &ask(100), NOW), Ok(None), "{limits:?}");
            }
        }
    }

    #[test]
    fn what_is_lost_to_bytes_is_less_than_a_twentieth_of_a_limit() {
        let account = Account::default();
        let limits = tokens_per_minute(20_000);
        let mut held = Vec::new();
        while let Some((next, _)) = account.admit_by_bytes(&limits, &ask(100), NOW).unwrap() {
            held.push(next);
        }
        // Of four bytes three are not needed.
        let lost = account.state.lock().by_bytes.tokens.get() * 3 / 4;
        assert!((500..1000).contains(&lost), "{lost}");
        for held in &held {
            account.settle(held, Used::default(), crate::limits::Output::Known, NOW);
        }
        assert_eq!(account.state.lock().by_bytes, Rough::default());
    }

    #[test]
    fn limits_that_no_prompt_is_short_enough_for_are_told_at_once() {
        let limits = Limits { calls_per_minute: NonZeroU32::new(1), ..tokens_per_minute(20_000) };
        let account = Account::default();
        account.count_call(NOW);
        let refused = account.may_call(&limits, NOW).unwrap_err();
        assert_eq!(account.admit_by_bytes(&limits, &ask(10), NOW), Err(refused));
        assert_eq!(account.refusal(&limits, &ask(10), NOW), Some(refused));
    }

    #[test]
    fn a_prompt_beyond_its_room_is_refused() {
        let account = Account::default();
        let spend = Quota::Spend { limit: NanoDollars::new(1_000_000), period: Period::Daily };
        for (limits, room) in [
            (tokens_per_minute(5000), 5000),
            (Limits { quotas: [spend].into(), ..tokens_per_minute(5000) }, 1000),
            (Limits::default(), u64::MAX),
        ] {
            assert_eq!(account.prompt_room(&limits, &ask(0).prices, NOW), Tokens::new(room));
            if room < u64::MAX {
                assert!(account.refusal(&limits, &ask(room + 1), NOW).is_some());
                assert_eq!(account.refusal(&limits, &ask(room - 100), NOW), None);
            }
        }
    }
}
