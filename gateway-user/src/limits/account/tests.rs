use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::super::lease::{LeaseReply, RESOURCES, SliceReply};
use super::super::{Admission, Footing, Occasion, Quota, Standing};
use super::*;
use crate::units::TokenPrice;

pub(super) const START: Now = Now { monotonic_ms: 1_000_000, utc_seconds: 1_709_212_455 };
pub(super) const PRICES: Prices = Prices {
    input: TokenPrice::from_pico_dollars(150_000),
    cached_input: TokenPrice::from_pico_dollars(75_000),
    output: TokenPrice::from_pico_dollars(600_000),
};

fn later(ms: u64) -> Now {
    Now { monotonic_ms: START.monotonic_ms + ms, utc_seconds: START.utc_seconds + ms / 1000 }
}

fn tokens_per_minute(limit: u32) -> Limits {
    Limits { tokens_per_minute: NonZeroU32::new(limit), ..Limits::default() }
}

fn ask(prompt: u64) -> Ask {
    Ask {
        prompt: Tokens::new(prompt),
        answers: 1,
        output_named: None,
        output_most: Tokens::new(16_384),
        prices: PRICES,
    }
}

pub(super) fn used(prompt: u64, output: u64) -> Used {
    Used {
        tokens: Tokens::new(prompt + output),
        output: Tokens::new(output),
        cost: PRICES.cost(Tokens::new(prompt), Tokens::ZERO, Tokens::new(output)),
    }
}

#[test]
fn calls_beyond_the_rate_wait_for_the_first_to_leave_the_minute() {
    let account = Account::default();
    let limits = Limits { calls_per_minute: NonZeroU32::new(2), ..Limits::default() };
    let (_, grant) = account.admit(&limits, &ask(1), START).unwrap();
    assert_eq!(grant.calls_left, Some(1));
    account.admit(&limits, &ask(1), later(500)).unwrap();
    let refused = account.admit(&limits, &ask(1), later(700)).unwrap_err();
    assert_eq!(refused, Refused::Calls { limit: 2, wait: Duration::from_millis(60_500 - 700) });
    account.admit(&limits, &ask(1), later(60_500)).unwrap();
}

#[test]
fn a_slot_is_given_back_on_every_way_out() {
    let account = Arc::new(Account::default());
    let limits = Limits { concurrent_calls: NonZeroU32::new(1), ..Limits::default() };
    let (open, _) = Admission::admit(&account, &limits, &ask(1), START).unwrap();
    let refused = Admission::admit(&account, &limits, &ask(1), START).unwrap_err();
    assert!(matches!(refused, Refused::Concurrency { limit: 1, .. }));
    drop(open);
    let (open, _) = Admission::admit(&account, &limits, &ask(1), START).unwrap();
    open.settle(used(1, 1), START);
    assert_eq!(account.counters(START).open_calls, 0);
    Admission::admit(&account, &limits, &ask(1), START).unwrap();
}

#[test]
fn a_call_that_names_no_output_limit_leaves_room_for_others() {
    let account = Account::default();
    let limits = tokens_per_minute(20_000);
    for _ in 0..10 {
        let (_, grant) = account.admit(&limits, &ask(20), START).unwrap();
        assert!(grant.output.unwrap() >= Tokens::new(300), "{grant:?}");
    }
    let counters = account.counters(START);
    assert!(counters.tokens_held <= Tokens::new(20_000));
}

#[test]
fn a_named_output_limit_is_held_whole_where_there_is_room() {
    let account = Account::default();
    let ask = Ask { output_named: Some(Tokens::new(4_000)), ..ask(20) };
    let (_, grant) = account.admit(&tokens_per_minute(20_000), &ask, START).unwrap();
    assert_eq!(grant.output, Some(Tokens::new(4_000)));
}

#[test]
fn a_prompt_beyond_the_whole_budget_is_told_that_waiting_does_not_help() {
    let account = Account::default();
    let refused = account.admit(&tokens_per_minute(100), &ask(101), START).unwrap_err();
    let (limit, prompt) = (Tokens::new(100), Tokens::new(101));
    assert_eq!(refused, Refused::Prompt { limit, prompt, answers: 1 });
}

#[test]
fn an_overrun_is_a_debt() {
    let account = Arc::new(Account::default());
    let limits = tokens_per_minute(1_000);
    let (call, _) = Admission::admit(&account, &limits, &ask(10), START).unwrap();
    call.settle(used(10, 5_000), START);
    let refused = account.admit(&limits, &ask(10), later(1_000)).unwrap_err();
    assert_eq!(refused, Refused::Tokens { limit: Tokens::new(1_000), wait: Duration::from_secs(59) });
}

#[test]
fn a_soft_ceiling_holds_the_prompt_only_and_books_the_overshoot() {
    let account = Arc::new(Account::default());
    let limits = Limits { ceiling: Ceiling::Soft, ..tokens_per_minute(100) };
    let (first, grant) = Admission::admit(&account, &limits, &ask(40), START).unwrap();
    assert_eq!(grant.output, None);
    let (second, _) = Admission::admit(&account, &limits, &ask(40), START).unwrap();
    assert!(matches!(account.admit(&limits, &ask(40), START), Err(Refused::Tokens { .. })));
    assert_eq!(first.output_assumed(), Tokens::new(256), "nobody knows yet what answers need");
    first.settle(used(40, 500), START);
    second.settle(used(40, 500), START);
    assert_eq!(account.counters(START).tokens_in_window, Tokens::new(1_080));
    let (third, _) = Admission::admit(&account, &limits, &ask(40), later(61_000)).unwrap();
    assert_eq!(third.output_assumed(), Tokens::new(625));
}

#[test]
fn answers_that_nobody_saw_do_not_tell_what_answers_need() {
    let account = Arc::new(Account::default());
    let limits = tokens_per_minute(100_000);
    let ask = Ask { output_named: None, ..ask(10) };
    let (seen, _) = Admission::admit(&account, &limits, &ask, START).unwrap();
    seen.settle(used(10, 500), START);
    let likely = |account: &Arc<Account>| {
        let soft = Limits { ceiling: Ceiling::Soft, ..Limits::default() };
        Admission::admit(account, &soft, &ask, START).unwrap().0.output_assumed()
    };
    assert_eq!(likely(&account), Tokens::new(625));
    for _ in 0..5 {
        let (unseen, _) = Admission::admit(&account, &limits, &ask, START).unwrap();
        let output = unseen.output_assumed().get();
        unseen.settle_with(used(10, output), Output::Assumed, START);
    }
    assert_eq!(likely(&account), Tokens::new(625));
}

#[test]
fn quotas_refuse_until_their_period_ends() {
    let account = Arc::new(Account::default());
    let limit = Tokens::new(1_000);
    let limits =
        Limits { quotas: Box::new([Quota::Tokens { limit, period: Period::Daily }]), ..Limits::default() };
    let (call, _) = Admission::admit(&account, &limits, &ask(400), START).unwrap();
    call.settle(used(400, 600), START);
    let refused = account.admit(&limits, &ask(1), later(1_000)).unwrap_err();
    let ends_at = 1_709_251_200;
    assert_eq!(refused, Refused::TokenQuota { limit, period: Period::Daily, ends_at });
    let tomorrow = Now { monotonic_ms: START.monotonic_ms + 90_000_000, utc_seconds: ends_at };
    account.admit(&limits, &ask(1), tomorrow).unwrap();
}

#[test]
fn a_spend_quota_holds_what_the_call_may_cost() {
    let account = Account::default();
    // Ten thousand output tokens' worth.
    let limit = NanoDollars::new(6_000_000);
    let limits =
        Limits { quotas: Box::new([Quota::Spend { limit, period: Period::Hourly }]), ..Limits::default() };
    let mut held = Vec::new();
    while let Ok((one, _)) = account.admit(&limits, &ask(100), START) {
        held.push(one);
    }
    assert!(held.len() > 10);
    assert!(account.counters(START).cost_held <= limit);
}

#[test]
fn a_hold_grows_only_into_what_is_free() {
    let account = Arc::new(Account::default());
    let limits = tokens_per_minute(1_000);
    let (mut call, grant) = Admission::admit(&account, &limits, &ask(100), START).unwrap();
    assert_eq!(grant.output, Some(Tokens::new(256)));
    call.grow(&limits, Tokens::new(600), START).unwrap();
    assert!(matches!(call.grow(&limits, Tokens::new(600), START), Err(Refused::Tokens { .. })));
    assert_eq!(call.output_allowed(), Tokens::new(856));
    drop(call);
    assert_eq!(account.counters(START).tokens_held, Tokens::ZERO);
}

#[test]
fn spent_output_leaves_the_window_a_minute_after_it_was_seen() {
    let account = Arc::new(Account::default());
    let limits = tokens_per_minute(1_000);
    let (mut call, _) = Admission::admit(&account, &limits, &ask(100), START).unwrap();
    call.spend(Tokens::new(200), START);
    let minute_later = later(62_000);
    assert_eq!(account.counters(minute_later).tokens_in_window, Tokens::ZERO);
    call.settle(used(100, 210), minute_later);
    let counters = account.counters(minute_later);
    assert_eq!(counters.tokens_in_window, Tokens::new(110));
    assert_eq!(counters.tokens_held, Tokens::ZERO);
    assert_eq!(counters.periods[Period::Daily.index()].tokens, Tokens::new(310));
}

#[test]
fn one_decision_follows_one_footing() {
    let standing = Arc::new(Standing::new(Footing::Alone));
    let account = Account::leased(Arc::clone(&standing));
    let limits = tokens_per_minute(100_000);
    // A share and no lease.
    account.cover(&limits, &ask(10), START);
    let request = account.lease_request(&limits, Occasion::Asked, START).unwrap();
    let slice = SliceReply { share: 1_000, ..SliceReply::default() };
    let reply = LeaseReply { generation: "1".into(), slices: [slice; RESOURCES] };
    account.lease_reply(&request, &reply, Duration::ZERO, START);
    let over = AtomicBool::new(false);
    // A call is unleased, or let in on the share. That there is too little of the share, only a decision says that read both.
    let strange = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                standing.set_up(false);
                standing.set_up(true);
            }
        });
        let strange = (0..300_000).find_map(|_| match account.admit(&limits, &ask(10), START) {
            Ok((held, _)) => {
                account.release(&held);
                None
            }
            Err(Refused::Unleased { .. }) => None,
            Err(refused) => Some(refused),
        });
        over.store(true, Ordering::Relaxed);
        strange
    });
    assert_eq!(strange, None);
}

#[test]
fn an_answer_that_was_cut_short_teaches_that_more_is_needed() {
    let account = Arc::new(Account::default());
    let limits = tokens_per_minute(20_000);
    let (call, grant) = Admission::admit(&account, &limits, &ask(19_000), START).unwrap();
    assert_eq!(grant.output, Some(Tokens::new(256)));
    call.settle(used(100, 256), START);
    let _others = account.admit(&limits, &Ask { output_most: Tokens::ZERO, ..ask(19_000) }, START).unwrap();
    // There is room for as much again and more, but not for twice as much.
    assert!(matches!(account.admit(&limits, &ask(20), START), Err(Refused::Tokens { .. })));
}

#[test]
fn a_tenants_first_calls_wait_rather_than_being_cut_at_a_sliver() {
    let account = Account::default();
    let limits = tokens_per_minute(20_000);
    account.admit(&limits, &Ask { output_most: Tokens::ZERO, ..ask(19_800) }, START).unwrap();
    assert!(matches!(account.admit(&limits, &ask(20), START), Err(Refused::Tokens { .. })));
}

#[derive(Debug, Clone)]
enum Step {
    Admit { prompt: u64, named: Option<u64> },
    Grow { call: usize, more: u64 },
    Spend { call: usize, part: u64 },
    Shrink { call: usize },
    Settle { call: usize, part: u64 },
    Abandon { call: usize },
    Tick { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..2_000, prop::option::of(1_u64..5_000)).prop_map(|(prompt, named)| Step::Admit { prompt, named }),
        1 => (any::<usize>(), 1_u64..3_000).prop_map(|(call, more)| Step::Grow { call, more }),
        1 => (any::<usize>(), 0_u64..=100).prop_map(|(call, part)| Step::Spend { call, part }),
        1 => any::<usize>().prop_map(|call| Step::Shrink { call }),
        3 => (any::<usize>(), 0_u64..=100).prop_map(|(call, part)| Step::Settle { call, part }),
        1 => any::<usize>().prop_map(|call| Step::Abandon { call }),
        3 => (1_u64..20_000).prop_map(|ms| Step::Tick { ms }),
    ]
}

/// A call of the schedule, and what it may still do without breaking its side of the bargain.
struct Open {
    admission: Admission,
    prompt: u64,
    spent: u64,
}

proptest! {
    #[test]
    fn settled_and_held_never_pass_a_strict_limit(
        steps in prop::collection::vec(step(), 1..120), minute in 1_000_u32..20_000, day in 5_000_u64..100_000,
    ) {
        let account = Arc::new(Account::default());
        let spend = NanoDollars::new(day * 400);
        let limits = Limits {
            tokens_per_minute: NonZeroU32::new(minute),
            quotas: Box::new([
                Quota::Tokens { limit: Tokens::new(day), period: Period::Daily },
                Quota::Spend { limit: spend, period: Period::Hourly },
            ]),
            ..Limits::default()
        };
        let mut open: Vec<Open> = Vec::new();
        let mut ms = 0;
        for step in steps {
            let now = later(ms);
            match step {
                Step::Admit { prompt, named } => {
                    let ask = Ask { output_named: named.map(Tokens::new), ..ask(prompt) };
                    if let Ok((admission, _)) = Admission::admit(&account, &limits, &ask, now) {
                        open.push(Open { admission, prompt, spent: 0 });
                    }
                }
                Step::Tick { ms: more } => ms += more,
                Step::Grow { call, more } if !open.is_empty() => {
                    let at = call % open.len();
                    let _refused = open[at].admission.grow(&limits, Tokens::new(more), now);
                }
                Step::Spend { call, part } if !open.is_empty() => {
                    let at = call % open.len();
                    let call = &mut open[at];
                    let spend = (call.admission.output_allowed().get() - call.spent) * part / 100;
                    call.admission.spend(Tokens::new(spend), now);
                    call.spent += spend;
                }
                Step::Shrink { call } if !open.is_empty() => {
                    let at = call % open.len();
                    open[at].prompt = open[at].prompt.div_ceil(2);
                    let prompt = Tokens::new(open[at].prompt);
                    open[at].admission.shrink_prompt(prompt);
                }
                Step::Settle { call, part } if !open.is_empty() => {
                    let call = open.swap_remove(call % open.len());
                    let rest = (call.admission.output_allowed().get() - call.spent) * part / 100;
                    let used = used(call.prompt, call.spent + rest);
                    call.admission.settle(used, now);
                }
                Step::Abandon { call } if !open.is_empty() => {
                    open.swap_remove(call % open.len());
                }
                _ => {}
            }
            let counters = account.counters(later(ms));
            let total = counters.tokens_in_window.saturating_add(counters.tokens_held);
            prop_assert!(total <= Tokens::new(u64::from(minute)), "{counters:?}");
            let today = counters.periods[Period::Daily.index()].tokens.saturating_add(counters.tokens_held);
            prop_assert!(today <= Tokens::new(day), "{counters:?}");
            // Each booking of a part rounds up by less than a billionth of a dollar.
            let hour = counters.periods[Period::Hourly.index()].cost.saturating_add(counters.cost_held);
            prop_assert!(hour.get() <= spend.get() + 240, "{counters:?}");
        }
        open.clear();
        let counters = account.counters(later(ms));
        prop_assert_eq!(counters.tokens_held, Tokens::ZERO);
        prop_assert_eq!(counters.cost_held, NanoDollars::ZERO);
        prop_assert_eq!(counters.open_calls, 0);
    }
}
