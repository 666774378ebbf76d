//! What it costs to let a call in and to settle it, in memory: with one tenant to itself, with one tenant that every
//! core hammers, and with ten thousand tenants at random.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_user::limits::{Account, Admission, Ask, Ceiling, Clock, Limits, Now, Period, Quota, Used};
use gateway_user::units::{NanoDollars, Prices, TokenPrice, Tokens};

const PRICES: Prices = Prices {
    input: TokenPrice::from_pico_dollars(150_000),
    cached_input: TokenPrice::from_pico_dollars(75_000),
    output: TokenPrice::from_pico_dollars(600_000),
};
const ASK: Ask = Ask {
    prompt: Tokens::new(50),
    output_named: None,
    output_most: Tokens::new(16_384),
    answers: 1,
    prices: PRICES,
};
const TENANTS: usize = 10_000;

/// Every kind of limit at once, none of which is reached.
fn limits() -> Limits {
    let quotas = [
        Quota::Tokens { limit: Tokens::new(u64::MAX / 4), period: Period::Monthly },
        Quota::Spend { limit: NanoDollars::new(u64::MAX / 4), period: Period::Daily },
    ];
    Limits {
        calls_per_minute: Some(std::num::NonZeroU32::MAX),
        tokens_per_minute: Some(std::num::NonZeroU32::MAX),
        concurrent_calls: Some(std::num::NonZeroU32::MAX),
        quotas: Box::new(quotas),
        ceiling: Ceiling::Strict,
    }
}

/// A pace of ten thousand calls a second, so that slots and windows turn over as they do in service.
fn moment(call: u64) -> Now {
    Now { monotonic_ms: 1_000_000 + call / 10, utc_seconds: 1_800_000_000 + call / 10_000 }
}

/// A call's whole life in the account.
fn call(account: &Arc<Account>, limits: &Limits, now: Now) {
    if let Ok((admission, grant)) = Admission::admit(account, limits, black_box(&ASK), now) {
        black_box(grant);
        let cost = PRICES.cost(ASK.prompt, Tokens::ZERO, Tokens::new(20));
        admission.settle(Used { tokens: Tokens::new(70), output: Tokens::new(20), cost }, now);
    }
}

fn one_tenant(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_tenant");
    let limits = limits();
    let account = Arc::new(Account::default());
    let mut count = 0;
    group.bench_function("admit_and_settle", |bench| {
        bench.iter(|| {
            count += 1;
            call(&account, &limits, moment(count));
        });
    });
    group.bench_function("admit_and_give_back", |bench| {
        bench.iter(|| {
            count += 1;
            drop(black_box(Admission::admit(&account, &limits, black_box(&ASK), moment(count))));
        });
    });
    let exhausted = Limits { tokens_per_minute: std::num::NonZeroU32::new(64), ..limits.clone() };
    let account = Arc::new(Account::default());
    let debt = Used { tokens: Tokens::new(1_000), ..Used::default() };
    if let Ok((admission, _)) = Admission::admit(&account, &limits, &ASK, moment(0)) {
        admission.settle(debt, moment(0));
    }
    group.bench_function("refuse", |bench| {
        bench.iter(|| black_box(Admission::admit(&account, &exhausted, black_box(&ASK), moment(1)).is_err()));
    });
    let clock = Clock::start();
    group.bench_function("read_the_clock", |bench| bench.iter(|| black_box(clock.now())));
    group.finish();
}

/// Wall time of `calls` calls shared out over every core, each thread choosing its account by `choose`.
fn on_every_core(calls: u64, choose: impl Fn(&mut u64) -> Arc<Account> + Sync) -> Duration {
    let (limits, choose) = (limits(), &choose);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let started = Instant::now();
    thread::scope(|scope| {
        for core in 0..cores {
            let limits = &limits;
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15 + core;
                for count in 0..calls.div_ceil(cores) {
                    call(&choose(&mut random), limits, moment(count * cores));
                }
            });
        }
    });
    started.elapsed()
}

fn every_core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("every_core");
    group.bench_function("one_tenant", |bench| {
        let account = Arc::new(Account::default());
        bench.iter_custom(|calls| on_every_core(calls, |_| Arc::clone(&account)));
    });
    group.bench_function("ten_thousand_tenants", |bench| {
        let accounts = accounts();
        bench.iter_custom(|calls| on_every_core(calls, |random| Arc::clone(any(&accounts, random))));
    });
    group.finish();
}

fn many_tenants(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ten_thousand_tenants");
    let (limits, accounts) = (limits(), accounts());
    let (mut count, mut random) = (0, 1);
    group.bench_function("admit_and_settle", |bench| {
        bench.iter(|| {
            count += 1;
            call(any(&accounts, &mut random), &limits, moment(count));
        });
    });
    group.finish();
}

fn accounts() -> Vec<Arc<Account>> {
    (0..TENANTS).map(|_| Arc::new(Account::default())).collect()
}

/// The next of a xorshift sequence (Marsaglia, "Xorshift RNGs", 2003) picks one.
fn any<'a>(accounts: &'a [Arc<Account>], random: &mut u64) -> &'a Arc<Account> {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let index = usize::try_from(*random).unwrap_or_default() % accounts.len();
    &accounts[index]
}

criterion_group!(benches, one_tenant, many_tenants, every_core);
criterion_main!(benches);
