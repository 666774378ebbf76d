use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;

use crate::limits::{Account, Admission, Ask, Counters, Limits, Now, Period, Quota, Refused, Used};
use crate::units::{NanoDollars, Prices, TokenPrice, Tokens};

const START: Now = Now { monotonic_ms: 500_000, utc_seconds: 1_709_212_455 };
const PRICES: Prices = Prices {
    input: TokenPrice::from_pico_dollars(150_000),
    cached_input: TokenPrice::from_pico_dollars(75_000),
    output: TokenPrice::from_pico_dollars(600_000),
};

fn later(ms: u64) -> Now {
    Now { monotonic_ms: START.monotonic_ms + ms, utc_seconds: START.utc_seconds + ms / 1000 }
}

/// The same moment in a process that has just started.
fn restarted(now: Now) -> Now {
    Now { monotonic_ms: 7, ..now }
}

fn ask(prompt: u64, output: u64) -> Ask {
    let (prompt, output) = (Tokens::new(prompt), Tokens::new(output));
    Ask { prompt, output_named: Some(output), output_most: output, answers: 1, prices: PRICES }
}

fn used(prompt: u64, output: u64) -> Used {
    let (prompt, output) = (Tokens::new(prompt), Tokens::new(output));
    Used { tokens: prompt.saturating_add(output), output, cost: PRICES.cost(prompt, Tokens::ZERO, output) }
}

fn limits(minute: u32) -> Limits {
    Limits { tokens_per_minute: NonZeroU32::new(minute), ..Limits::default() }
}

fn restore(account: &Account, now: Now) -> Account {
    Account::restore(&account.checkpoint(now).unwrap(), restarted(now))
}

#[test]
fn a_restart_gives_nobody_a_fresh_minute() {
    let account = Arc::new(Account::default());
    let (call, _) = Admission::admit(&account, &limits(1000), &ask(100, 800), START).unwrap();
    call.settle(used(100, 800), START);
    let after = restore(&account, later(20_000));
    let refused = after.admit(&limits(1000), &ask(100, 800), restarted(later(20_000))).unwrap_err();
    let Refused::Tokens { wait, .. } = refused else { panic!("{refused:?}") };
    // 61 slots, 20 of them gone, and the restart's two seconds on the safe side.
    assert!((39..=43).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn what_was_held_counts_as_used() {
    let account = Arc::new(Account::default());
    let (mut call, grant) = Admission::admit(&account, &limits(10_000), &ask(100, 400), START).unwrap();
    assert_eq!(grant.output, Some(Tokens::new(400)));
    call.spend(Tokens::new(150), START);
    let checkpoint = account.checkpoint(START).unwrap();
    let most = checkpoint.open.most();
    assert_eq!((most.tokens, most.output), (Tokens::new(500), Tokens::new(400)));
    let after = Account::restore(&checkpoint, restarted(START)).counters(restarted(START));
    let Counters { tokens_in_window, tokens_held, open_calls, periods, .. } = after;
    assert_eq!((tokens_in_window, tokens_held, open_calls), (Tokens::new(500), Tokens::ZERO, 0));
    assert!(periods.iter().all(|book| book.tokens == Tokens::new(500)), "{periods:?}");
    assert!(periods.iter().all(|book| book.cost >= used(100, 400).cost), "{periods:?}");
    drop(call);
}

#[test]
fn what_was_held_belongs_to_the_period_in_which_it_was() {
    let account = Arc::new(Account::default());
    let (_call, _) = Admission::admit(&account, &limits(10_000), &ask(100, 400), START).unwrap();
    let checkpoint = account.checkpoint(START).unwrap();
    let tomorrow = Now { monotonic_ms: 0, utc_seconds: START.utc_seconds + 86_400 };
    let after = Account::restore(&checkpoint, tomorrow).counters(tomorrow);
    assert_eq!(after.tokens_in_window, Tokens::ZERO);
    assert_eq!(after.periods[Period::Daily.index()].tokens, Tokens::ZERO);
    assert_eq!(after.periods[Period::Yearly.index()].tokens, Tokens::new(500));
}

#[test]
fn a_clock_that_was_ahead_does_not_hold_a_quota_down_for_ever() {
    let account = Arc::new(Account::default());
    let ahead = Now { utc_seconds: START.utc_seconds + 10 * 365 * 86_400, ..START };
    let quota = Quota::Tokens { limit: Tokens::new(500), period: Period::Daily };
    let limits = Limits { quotas: Box::new([quota]), ..Limits::default() };
    let (call, _) = Admission::admit(&account, &limits, &ask(100, 400), ahead).unwrap();
    call.settle(used(100, 400), ahead);
    let after = Account::restore(&account.checkpoint(ahead).unwrap(), restarted(START));
    let Err(Refused::TokenQuota { ends_at, .. }) = after.admit(&limits, &ask(1, 1), restarted(START)) else {
        panic!("what was used is forgotten")
    };
    assert_eq!(ends_at, Period::Daily.around(START.utc_seconds).1);
}

#[test]
fn only_what_has_changed_needs_a_checkpoint() {
    let account = Arc::new(Account::default());
    assert!(account.is_kept() && account.checkpoint(START).is_none());
    let (call, _) = Admission::admit(&account, &limits(1000), &ask(1, 1), START).unwrap();
    let checkpoint = account.checkpoint(START).unwrap();
    assert!(!account.is_kept(), "a checkpoint that was only taken is not kept");
    account.kept(&checkpoint);
    assert!(account.is_kept() && account.checkpoint(START).is_none());
    account.admit(&limits(1), &ask(100, 100), START).unwrap_err();
    assert!(account.is_kept(), "a refusal changes nothing");
    call.settle(used(1, 1), START);
    account.kept(&checkpoint);
    assert!(!account.is_kept(), "an older checkpoint is not this one");
}

#[test]
fn an_account_is_over_once_its_periods_are() {
    let account = Arc::new(Account::default());
    let (call, _) = Admission::admit(&account, &limits(1000), &ask(1, 1), START).unwrap();
    call.settle(used(1, 1), START);
    let checkpoint = account.checkpoint(START).unwrap();
    assert!(!checkpoint.is_over(START.utc_seconds + 86_400));
    assert!(checkpoint.is_over(Period::Yearly.around(START.utc_seconds).1));
}

#[derive(Debug, Clone)]
enum Step {
    Admit { prompt: u64, output: u64 },
    Spend { call: usize, part: u64 },
    Settle { call: usize, part: u64 },
    Checkpoint,
    Tick { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..500, 1_u64..500).prop_map(|(prompt, output)| Step::Admit { prompt, output }),
        2 => (any::<usize>(), 0_u64..=100).prop_map(|(call, part)| Step::Spend { call, part }),
        3 => (any::<usize>(), 0_u64..=100).prop_map(|(call, part)| Step::Settle { call, part }),
        2 => Just(Step::Checkpoint),
        2 => (1_u64..500).prop_map(|ms| Step::Tick { ms }),
    ]
}

proptest! {
    /// A crash at any step: the restored books hold all that was used by the calls known at the last checkpoint, and no
    /// more than what those calls could have used. What later calls used is what a crash loses.
    #[test]
    fn a_crash_at_any_step_loses_only_what_began_after_the_last_checkpoint(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        struct Open { admission: Admission, prompt: u64, spent: u64, known: bool }
        let account = Arc::new(Account::default());
        let limits = limits(50_000);
        let mut open: Vec<Open> = Vec::new();
        let (mut kept, mut before, mut known_used, mut ms) = (None, 0_u64, 0_u64, 0);
        for step in steps {
            let now = later(ms);
            match step {
                Step::Admit { prompt, output } => {
                    if let Ok((admission, _)) = Admission::admit(&account, &limits, &ask(prompt, output), now) {
                        open.push(Open { admission, prompt, spent: 0, known: false });
                    }
                }
                Step::Spend { call, part } if !open.is_empty() => {
                    let at = call % open.len();
                    let call = &mut open[at];
                    let more = (call.admission.output_allowed().get() - call.spent) * part / 100;
                    call.admission.spend(Tokens::new(more), now);
                    call.spent += more;
                }
                Step::Settle { call, part } if !open.is_empty() => {
                    let Open { admission, prompt, spent, known } = open.swap_remove(call % open.len());
                    let output = spent + (admission.output_allowed().get() - spent) * part / 100;
                    admission.settle(used(prompt, output), now);
                    if known { known_used += prompt + output } else { before += prompt + output }
                }
                Step::Tick { ms: more } => ms += more,
                Step::Checkpoint => {
                    if let Some(checkpoint) = account.checkpoint(now) {
                        account.kept(&checkpoint);
                        known_used += std::mem::take(&mut before);
                        open.iter_mut().for_each(|call| call.known = true);
                        kept = Some(checkpoint);
                    }
                }
                Step::Spend { .. } | Step::Settle { .. } => {}
            }
            let Some(kept) = &kept else { continue };
            let after = Account::restore(kept, restarted(later(ms))).counters(restarted(later(ms)));
            let books = after.periods[Period::Yearly.index()].tokens.get();
            let running: u64 = open.iter().filter(|call| call.known).map(|call| call.prompt + call.spent).sum();
            prop_assert!(books >= known_used + running, "{books} < {known_used} + {running}");
            let settled = kept.books[Period::Yearly.index()].tokens.get();
            prop_assert_eq!(books, settled + kept.open.prompt.get() + kept.open.output.get());
            prop_assert_eq!(after.tokens_in_window.get(), books, "the run is shorter than a minute");
            prop_assert_eq!((after.tokens_held, after.cost_held), (Tokens::ZERO, NanoDollars::ZERO));
        }
    }
}
