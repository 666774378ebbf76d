//! How long the account of a removed tenant is kept: it may come back, and is to find what it had used then.

use super::checkpoint::WINDOW_SECONDS;
use super::{Account, Limits};
use crate::limits::Now;
use crate::limits::period::{Period, Quota};

impl Account {
    /// Notes that the tenant was removed. Its account is over when the last period has ended that its limits were about; where
    /// they are not known, when the longest period has.
    pub fn removed(&self, limits: Option<&Limits>, now: Now) {
        let mut state = self.state.lock();
        if state.over_at != 0 {
            return;
        }
        let of_quota = |quota: &Quota| match quota {
            Quota::Tokens { period, .. } | Quota::Spend { period, .. } => *period,
        };
        let ends_at = match limits {
            Some(limits) => {
                limits.quotas.iter().map(|quota| of_quota(quota).around(now.utc_seconds).1).max().unwrap_or(0)
            }
            None => Period::Yearly.around(now.utc_seconds).1,
        };
        state.over_at = ends_at.max(now.utc_seconds.saturating_add(WINDOW_SECONDS));
        state.changes += 1;
    }

    /// Notes that the tenant is there, if it was removed.
    pub fn returned(&self) {
        let mut state = self.state.lock();
        if state.over_at != 0 {
            state.over_at = 0;
            state.changes += 1;
        }
    }

    /// Whether the tenant was removed, and all that limited it is over.
    pub fn is_over(&self, now: Now) -> bool {
        let state = self.state.lock();
        state.over_at != 0 && now.utc_seconds >= state.over_at && state.open_calls == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{NanoDollars, Tokens};

    const NOW: Now = Now { monotonic_ms: 5_000, utc_seconds: 1_709_212_455 };

    fn at(utc_seconds: u64) -> Now {
        Now { utc_seconds, ..NOW }
    }

    fn limits(quotas: &[Quota]) -> Limits {
        Limits { quotas: quotas.into(), ..Limits::default() }
    }

    #[test]
    fn an_account_is_over_when_the_last_of_its_periods_is() {
        let hourly = Quota::Tokens { limit: Tokens::new(1), period: Period::Hourly };
        let monthly = Quota::Spend { limit: NanoDollars::new(1), period: Period::Monthly };
        for (limits, ends_at) in [
            (Some(limits(&[])), NOW.utc_seconds + WINDOW_SECONDS),
            (Some(limits(&[hourly])), Period::Hourly.around(NOW.utc_seconds).1),
            (Some(limits(&[monthly, hourly])), Period::Monthly.around(NOW.utc_seconds).1),
            (None, Period::Yearly.around(NOW.utc_seconds).1),
        ] {
            let account = Account::default();
            assert!(!account.is_over(at(u64::MAX)), "it is not removed");
            account.removed(limits.as_ref(), NOW);
            account.removed(None, at(NOW.utc_seconds + 50));
            assert!(!account.is_over(at(ends_at - 1)) && account.is_over(at(ends_at)));
            account.returned();
            assert!(!account.is_over(at(u64::MAX)));
        }
    }

    #[test]
    fn a_restart_does_not_forget_when_an_account_is_over() {
        let account = Account::default();
        account.removed(Some(&limits(&[])), NOW);
        let checkpoint = account.checkpoint(NOW).unwrap();
        let over_at = NOW.utc_seconds + WINDOW_SECONDS;
        let restored = Account::restore(&checkpoint, NOW);
        assert!(!restored.is_over(at(over_at - 1)) && restored.is_over(at(over_at)));
        assert!(checkpoint.is_over(over_at + 1) && !checkpoint.is_over(over_at - 1));
    }
}
