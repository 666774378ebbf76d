//! What an operator gives back to an account, or charges it, beside its calls.

use super::{Account, Used};
use crate::limits::Now;

impl Account {
    /// Changes the use of the running periods: first by what is charged, then by what is given back, and never below zero. The
    /// minute's windows stay as they are, for they are over before anybody is told of this.
    pub fn adjust(&self, charged: Used, given_back: Used, now: Now) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.roll(now);
        state.write_down(charged, given_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Period;
    use crate::units::{NanoDollars, Tokens};

    const NOW: Now = Now { monotonic_ms: 5_000, utc_seconds: 1_709_212_455 };

    fn used(tokens: u64, cost: u64) -> Used {
        Used { tokens: Tokens::new(tokens), output: Tokens::ZERO, cost: NanoDollars::new(cost) }
    }

    #[test]
    fn periods_see_an_adjustment_and_are_never_below_zero() {
        let account = Account::default();
        account.adjust(used(100, 50), Used::default(), NOW);
        account.adjust(Used::default(), used(30, 60), NOW);
        for period in Period::ALL {
            assert_eq!(account.counters(NOW).periods[period.index()], used(70, 0));
        }
        assert_eq!(account.counters(NOW).tokens_in_window, Tokens::ZERO);
        let checkpoint = account.checkpoint(NOW).unwrap();
        assert_eq!(Account::restore(&checkpoint, NOW).counters(NOW).periods[0], used(70, 0));
    }

    #[test]
    fn a_period_that_has_ended_takes_nothing_into_the_next() {
        let account = Account::default();
        account.adjust(used(100, 50), Used::default(), NOW);
        let tomorrow = Now { utc_seconds: NOW.utc_seconds + 86_400, ..NOW };
        account.adjust(Used::default(), used(10, 5), tomorrow);
        let counters = account.counters(tomorrow);
        assert_eq!(counters.periods[Period::Daily.index()], used(0, 0));
        assert_eq!(counters.periods[Period::Yearly.index()], used(90, 45));
    }
}
