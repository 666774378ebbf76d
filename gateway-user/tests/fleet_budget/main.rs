//! Several nodes' accounts against the scripts in a real server, on a clock that the test moves: whatever the order of
//! events, the fleet stays within its limits.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests unwrap, and so do their helpers")]

mod forgotten;
mod model;
mod outages;
mod server;
mod shares;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway_user::limits::{
    Account, Admission, Ask, Cover, Footing, Limits, Occasion, Period, Quota, Refused, Standing,
};
use gateway_user::units::{NanoDollars, Tokens};
use proptest::prelude::*;

use model::{Fleet, PRICES};
use server::Server;

fn minute_of(tokens: u32) -> Limits {
    Limits { tokens_per_minute: NonZeroU32::new(tokens), ..Limits::default() }
}

#[derive(Debug, Clone)]
enum Step {
    Admit { node: usize, prompt: u64, named: Option<u64> },
    Settle { node: usize, call: usize, part: u64 },
    Sync { node: usize, lost: bool },
    Kill { node: usize },
    Tick { ms: u64 },
}

const NODES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        6 => (node.clone(), 1_u64..1_500, prop::option::of(1_u64..3_000))
            .prop_map(|(node, prompt, named)| Step::Admit { node, prompt, named }),
        5 => (node.clone(), any::<usize>(), 0_u64..=100)
            .prop_map(|(node, call, part)| Step::Settle { node, call, part }),
        5 => (node.clone(), prop::bool::weighted(0.2)).prop_map(|(node, lost)| Step::Sync { node, lost }),
        1 => node.prop_map(|node| Step::Kill { node }),
        3 => (1_u64..4_000).prop_map(|ms| Step::Tick { ms }),
        1 => (4_000_u64..70_000).prop_map(|ms| Step::Tick { ms }),
    ]
}

#[test]
fn a_fleet_never_passes_its_limits() {
    let server = Server::start();
    let mut connection = server.connect();
    let schedules = (prop::collection::vec(step(), 1..150), 2_000_u32..20_000, 10_000_u64..100_000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 96,
        ..ProptestConfig::default()
    });
    let connection = std::cell::RefCell::new(&mut connection);
    let result = runner.run(&schedules, |(steps, minute, day)| {
        let spend = NanoDollars::new(day * 400);
        let calls = minute / 200;
        let open = 1 + calls / 10;
        let limits = Limits {
            calls_per_minute: NonZeroU32::new(calls),
            concurrent_calls: NonZeroU32::new(open),
            tokens_per_minute: NonZeroU32::new(minute),
            quotas: Box::new([
                Quota::Tokens { limit: Tokens::new(day), period: Period::Monthly },
                Quota::Spend { limit: spend, period: Period::Yearly },
            ]),
            ..Limits::default()
        };
        let mut connection = connection.borrow_mut();
        let mut fleet = Fleet::new(&mut connection, NODES, limits);
        for step in steps {
            match step {
                Step::Admit { node, prompt, named } => drop(fleet.admit(node, prompt, named)),
                Step::Settle { node, call, part } => fleet.settle(node, call, part),
                Step::Sync { node, lost } => fleet.sync(node, Occasion::Renewal, lost),
                Step::Kill { node } => fleet.kill(node),
                Step::Tick { ms } => fleet.pass(ms),
            }
            prop_assert!(fleet.minute() <= u64::from(minute), "{} of {minute} tokens", fleet.minute());
            prop_assert!(fleet.calls_in_minute() <= u64::from(calls));
            prop_assert!(fleet.open() <= open, "{} of {open} are open", fleet.open());
            prop_assert!(fleet.held() + fleet.total_since(0) <= day);
            // Held and settled amounts are rounded up each for itself.
            prop_assert!(fleet.spent() <= spend.get() + 300, "{} of {spend}", fleet.spent());
        }
        Ok(())
    });
    result.unwrap();
}

/// Lets every node call in turn until none is let in any more, each call used up at once.
fn exhaust(fleet: &mut Fleet<'_>) {
    let mut refused = 0;
    for turn in 0.. {
        let node = turn % fleet.nodes.len();
        match fleet.admit(node, 50, Some(50)) {
            Ok(()) => {
                refused = 0;
                fleet.settle(node, 0, 100);
            }
            Err(_) => refused += 1,
        }
        fleet.sync(node, Occasion::Renewal, false);
        if refused > 4 * fleet.nodes.len() {
            return;
        }
        fleet.ms += 20;
    }
}

#[test]
fn nodes_use_the_whole_budget_between_them_and_none_is_left_out() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, minute_of(20_000));
    exhaust(&mut fleet);
    assert!(fleet.minute() > 19_500, "{}", fleet.minute());
    let by_node: Vec<_> =
        fleet.nodes.iter().map(|node| node.account.counters(fleet.now()).tokens_in_window.get()).collect();
    assert!(by_node.iter().all(|tokens| *tokens > 3_000), "{by_node:?}");
}

#[test]
fn one_hot_node_gets_what_idle_ones_do_not_use() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, minute_of(20_000));
    for node in 0..3 {
        fleet.admit(node, 50, Some(50)).unwrap();
        fleet.settle(node, 0, 100);
    }
    fleet.ms += 4_000;
    // The idle ones' renewals give back what they had.
    fleet.sync(1, Occasion::Renewal, false);
    fleet.sync(2, Occasion::Renewal, false);
    while fleet.admit(0, 50, Some(50)).is_ok() {
        fleet.settle(0, 0, 100);
    }
    assert!(fleet.minute() > 16_000, "all but the others' outage shares: {}", fleet.minute());
    // Those go where they are needed.
    fleet.pass(5_000);
    while fleet.admit(0, 50, Some(50)).is_ok() {
        fleet.settle(0, 0, 100);
    }
    assert!(fleet.minute() > 19_800, "{}", fleet.minute());
}

#[test]
fn a_dead_nodes_lease_comes_back_a_window_after_it_expired() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, minute_of(20_000));
    fleet.admit(0, 4_000, Some(4_000)).unwrap();
    fleet.kill(0);
    // Half of the budget is leased to the dead node, whether it used it or not, and a quarter of the rest is its share.
    fleet.admit(1, 5_500, Some(9_000)).unwrap();
    assert_eq!(fleet.nodes[1].open[0].admission.output_allowed(), Tokens::new(1_000));
    fleet.nodes[1].open.clear();
    fleet.pass(5_000 + 60_000);
    fleet.admit(1, 5_500, Some(9_000)).unwrap();
    assert_eq!(fleet.nodes[1].open[0].admission.output_allowed(), Tokens::new(1_000));
    fleet.nodes[1].open.clear();
    fleet.pass(2_000);
    fleet.admit(1, 16_500, Some(400)).unwrap();
    assert_eq!(fleet.nodes[1].open[0].admission.output_allowed(), Tokens::new(400));
}

#[test]
fn a_node_that_comes_back_gets_its_quota_back() {
    let server = Server::start();
    let mut connection = server.connect();
    let limit = Tokens::new(100_000);
    let quotas = Box::new([Quota::Tokens { limit, period: Period::Monthly }]);
    let mut fleet = Fleet::new(&mut connection, 2, Limits { quotas, ..Limits::default() });
    fleet.admit(0, 10_000, Some(10_000)).unwrap();
    fleet.settle(0, 0, 50);
    fleet.ms += 50_000;
    // Unheard of: what it had leased counts as used.
    assert!(fleet.admit(1, 84_000, Some(1_000)).is_err());
    fleet.sync(0, Occasion::Renewal, false);
    fleet.ms += 1_000;
    assert!(fleet.admit(1, 84_000, Some(1_000)).is_ok());
}

#[test]
fn a_server_that_lost_everything_is_told_again() {
    let server = Server::start();
    let mut connection = server.connect();
    let quotas = Box::new([Quota::Tokens { limit: Tokens::new(1_000_000), period: Period::Daily }]);
    let mut fleet = Fleet::new(&mut connection, 3, Limits { quotas, ..minute_of(20_000) });
    exhaust(&mut fleet);
    let before = fleet.minute();
    redis::cmd("FLUSHALL").exec(fleet.server).unwrap();
    for node in 0..3 {
        fleet.sync(node, Occasion::Renewal, false);
    }
    fleet.pass(3_000);
    exhaust(&mut fleet);
    assert!(fleet.minute() <= 20_000, "{before}, then {}", fleet.minute());
}

#[test]
fn refusing_a_node_lets_nothing_in() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 1, minute_of(12_000));
    fleet.admit(0, 50, Some(50)).unwrap();
    let account = &fleet.nodes[0].account;
    let shares = |account: &Account| account.leased_tokens(&fleet.limits, fleet.now()).unwrap().outage_share;
    assert!(shares(account) > 0);
    let standing = Arc::new(Standing::new(Footing::Refusing));
    standing.set_up(true);
    fleet.nodes[0].account = Arc::new(Account::leased(Arc::clone(&standing)));
    fleet.nodes[0].standing = Arc::clone(&standing);
    fleet.nodes[0].name.push_str("refusing");
    fleet.admit(0, 50, Some(50)).unwrap();
    let account = &fleet.nodes[0].account;
    assert_eq!(account.leased_tokens(&fleet.limits, fleet.now()).unwrap().outage_share, 0, "it is of no use");
    standing.set_up(false);
    assert!(matches!(fleet.admit(0, 50, Some(50)), Err(Refused::Unleased { .. })));
    standing.set_up(true);
    fleet.admit(0, 50, Some(50)).unwrap();
}

fn at_once(calls: u32) -> Limits {
    Limits { concurrent_calls: NonZeroU32::new(calls), ..Limits::default() }
}

/// Lets the nodes open calls in turn until none lets one in any more.
fn open_all(fleet: &mut Fleet<'_>) {
    for _ in 0..2 {
        for node in 0..fleet.nodes.len() {
            while fleet.admit(node, 1, Some(1)).is_ok() {}
        }
        // What one node has free beyond its need is given back with its next renewals.
        fleet.pass(3_000);
    }
}

#[test]
fn calls_open_at_once_are_shared_and_a_slot_moves_to_where_it_is_needed() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, at_once(7));
    for node in [0, 1, 2] {
        fleet.admit(node, 1, Some(1)).unwrap();
    }
    open_all(&mut fleet);
    assert_eq!(fleet.open(), 7, "every slot is of use to somebody");
    let refused = fleet.admit(1, 1, Some(1)).unwrap_err();
    assert!(matches!(refused, Refused::Concurrency { limit: 7, .. }), "{refused:?}");
    fleet.settle(0, 0, 100);
    fleet.pass(2_000);
    fleet.admit(2, 1, Some(1)).unwrap();
    assert_eq!(fleet.open(), 7);
}

#[test]
fn most_calls_find_a_slot_leased() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, at_once(100));
    fleet.admit(0, 1, Some(1)).unwrap();
    fleet.settle(0, 0, 100);
    let ask = Ask {
        prompt: Tokens::new(1),
        answers: 1,
        output_named: None,
        output_most: Tokens::new(1),
        prices: PRICES,
    };
    for _ in 0..10 {
        fleet.ms += 100;
        let cover = fleet.nodes[0].account.cover(&fleet.limits, &ask, fleet.now());
        assert_eq!(cover, Cover::Enough);
        Admission::admit(&fleet.nodes[0].account, &fleet.limits, &ask, fleet.now()).unwrap();
    }
}

#[test]
fn a_dead_nodes_slots_come_back_when_its_lease_expires() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, at_once(6));
    for _ in 0..4 {
        fleet.admit(0, 1, Some(1)).unwrap();
    }
    fleet.kill(0);
    open_all(&mut fleet);
    assert!(fleet.open() <= 2, "{} are open beside the dead node's lease", fleet.open());
    fleet.pass(5_000);
    open_all(&mut fleet);
    assert_eq!(fleet.open(), 6);
}

#[test]
fn money_and_calls_are_shared_too() {
    let server = Server::start();
    let mut connection = server.connect();
    let limits = Limits {
        calls_per_minute: NonZeroU32::new(30),
        quotas: Box::new([Quota::Spend { limit: NanoDollars::new(40_000_000), period: Period::Hourly }]),
        ..Limits::default()
    };
    let mut fleet = Fleet::new(&mut connection, 3, limits);
    exhaust(&mut fleet);
    assert!(fleet.calls_in_minute() <= 30 && fleet.calls_in_minute() >= 29, "{}", fleet.calls_in_minute());
    let refused = fleet.admit(0, 50, Some(50)).unwrap_err();
    assert!(
        matches!(refused, Refused::Calls { limit: 30, wait } if wait > Duration::from_secs(40)),
        "{refused:?}"
    );
    fleet.ms += 62_000;
    for _ in 0..20 {
        if fleet.admit(1, 100, Some(10_000)).is_ok() {
            fleet.settle(1, 0, 100);
        }
        fleet.ms += 1_000;
    }
    assert!(fleet.spent() <= 40_000_300 && fleet.spent() > 36_000_000, "{}", fleet.spent());
    let refused = fleet.admit(0, 10_000, Some(10_000)).unwrap_err();
    assert!(matches!(refused, Refused::SpendQuota { .. }), "{refused:?}");
}
