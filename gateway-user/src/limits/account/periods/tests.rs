use proptest::prelude::*;

use super::*;
use crate::limits::Account;

/// 2024-02-29T13:14:15Z.
const NOON: u64 = 1_709_212_455;
const DAY: u64 = 86_400;

fn at(utc_seconds: u64) -> Now {
    Now { monotonic_ms: 0, utc_seconds }
}

fn tokens(count: u64) -> Used {
    Used { tokens: Tokens::new(count), ..Used::default() }
}

fn charge(account: &Account, count: u64, utc_seconds: u64) {
    account.adjust(tokens(count), Used::default(), at(utc_seconds));
}

fn used(account: &Account, period: Period, utc_seconds: u64) -> u64 {
    account.counters(at(utc_seconds)).periods[period.index()].tokens.get()
}

fn restarted(account: &Account, utc_seconds: u64) -> Account {
    // Nothing has to have changed for the books to be written.
    charge(account, 0, utc_seconds);
    Account::restore(&account.checkpoint(at(utc_seconds)).unwrap(), at(utc_seconds))
}

#[test]
fn a_start_with_a_clock_that_is_behind_gives_no_period_back() {
    let account = Account::default();
    charge(&account, 4_700, NOON);
    let checkpoint = account.checkpoint(at(NOON)).unwrap();
    for behind in [90, 3 * 60 * 60, DAY, 40 * DAY, 400 * DAY, NOON] {
        let account = Account::restore(&checkpoint, at(NOON - behind));
        assert_eq!(used(&account, Period::Daily, NOON - behind), 4_700, "{behind}");
        charge(&account, 300, NOON - behind);
        for then in [NOON - behind + 1, NOON, NOON + 60] {
            assert_eq!(used(&account, Period::Daily, then), 5_000, "{behind}");
        }
        assert_eq!(used(&account, Period::Daily, NOON + DAY), 0, "{behind}");
    }
}

#[test]
fn a_clock_that_was_ahead_for_a_while_gives_no_period_back() {
    let account = Account::default();
    charge(&account, 4_000, NOON);
    charge(&account, 500, NOON + DAY);
    assert_eq!(used(&account, Period::Daily, NOON + DAY), 500, "it may be tomorrow");
    assert_eq!(used(&account, Period::Daily, NOON), 4_500);
    charge(&account, 20, NOON);
    assert_eq!(used(&account, Period::Daily, NOON + DAY), 520, "and it may have been tomorrow");
    for _again in 0..3 {
        assert_eq!(used(&account, Period::Daily, NOON), 4_520, "a clock that goes to and fro adds nothing");
        assert_eq!(used(&account, Period::Daily, NOON + DAY), 520);
    }
    assert_eq!(used(&account, Period::Yearly, NOON), 4_520);
}

#[test]
fn a_clock_that_was_ahead_holds_nothing_down_for_longer_than_a_period() {
    let account = Account::default();
    charge(&account, 4_000, NOON + 4_000 * DAY);
    for running in [
        account.checkpoint(at(NOON + 4_000 * DAY)).map(|kept| Account::restore(&kept, at(NOON))).unwrap(),
        account,
    ] {
        assert_eq!(used(&running, Period::Daily, NOON), 4_000);
        assert_eq!(used(&running, Period::Daily, NOON + DAY), 0);
    }
}

#[test]
fn a_small_step_back_changes_nothing() {
    let midnight = NOON / DAY * DAY;
    let account = Account::default();
    charge(&account, 4_000, midnight - 1);
    charge(&account, 10, midnight);
    charge(&account, 10, midnight - 1);
    assert_eq!(used(&account, Period::Daily, midnight - 59), 20);
}

#[test]
fn who_uses_nothing_keeps_no_other_books() {
    let account = Account::default();
    for day in 0..3 {
        charge(&account, 0, NOON + day * DAY);
    }
    assert!(account.state.lock().left.is_none());
}

proptest! {
    /// The clock is right but for one excursion, before or after which it may have been restarted.
    #[test]
    fn no_excursion_of_the_clock_gives_a_day_back(
        away in prop_oneof![0..NOON, NOON..NOON + 800 * DAY],
        before in 0_u64..100, during in 0_u64..100, after in 0_u64..100,
        restarts in any::<(bool, bool)>(),
    ) {
        let mut account = Account::default();
        charge(&account, before, NOON);
        if restarts.0 {
            account = restarted(&account, NOON);
        }
        charge(&account, during, away);
        if restarts.1 {
            account = restarted(&account, away);
        }
        charge(&account, after, NOON + 1);
        for period in Period::ALL {
            prop_assert_eq!(used(&account, period, NOON + 1), before + during + after);
        }
    }
}
