//! What a node serves without its server, and how its outage share comes and goes.

use std::num::NonZeroU32;

use gateway_user::limits::{Admission, Ask, Limits, Now, Period, Quota, Refused};
use gateway_user::units::Tokens;

use super::model::{Fleet, PRICES, START_SECONDS};
use super::server::Server;
use super::{at_once, minute_of};

const HOUR_SECONDS: u64 = 3_600;

/// Lets a node use all that it can at this moment.
fn use_up(fleet: &mut Fleet<'_>, node: usize) -> u64 {
    let before = fleet.minute();
    while fleet.admit(node, 50, Some(50)).is_ok() {
        fleet.settle(node, 0, 100);
    }
    fleet.minute() - before
}

fn share(fleet: &Fleet<'_>, node: usize) -> u64 {
    fleet.nodes[node].account.leased_tokens(&fleet.limits, fleet.now()).unwrap().outage_share
}

/// Nodes with a call each, a moment ago.
fn after_a_call(fleet: &mut Fleet<'_>) {
    for node in 0..fleet.nodes.len() {
        fleet.admit(node, 50, Some(50)).unwrap();
        fleet.settle(node, 0, 100);
    }
    // They have been told that they are so many, and have said that they know.
    fleet.pass(3_000);
}

#[test]
fn alone_a_node_uses_its_lease_and_then_its_share_in_every_minute() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, minute_of(24_000));
    after_a_call(&mut fleet);
    fleet.all_alone();
    let (share, bound) = (share(&fleet, 0), |fleet: &Fleet<'_>| {
        fleet.nodes[0].account.leased_tokens(&fleet.limits, fleet.now()).unwrap().overshoot_bound
    });
    assert!(share >= 900, "a part of what is left: {share}");
    let served = use_up(&mut fleet, 0);
    assert!(served > share + 1_000, "{served}: the lease too");
    // In the next minute the lease is over.
    for _ in 0..8 {
        fleet.pass(61_000);
        let served = use_up(&mut fleet, 0);
        assert!((share - 100..=share).contains(&served), "{served} of {share}");
        assert_eq!(bound(&fleet), 0);
    }
    // After ten minutes the server may have given the share to others.
    fleet.pass(121_000);
    assert!(matches!(fleet.admit(0, 50, Some(50)), Err(Refused::Unleased { .. })));
    // Back again, only what counts still is reported. The others would have two seconds for it.
    fleet.join(0);
    assert!(fleet.admit(0, 5_000, Some(50)).is_err());
    fleet.pass(3_000);
    assert!(fleet.admit(0, 5_000, Some(50)).is_ok());
}

#[test]
fn a_share_that_was_not_used_is_leased_before_all_have_reported() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, minute_of(24_000));
    after_a_call(&mut fleet);
    fleet.all_alone();
    fleet.pass(12_000);
    let share = share(&fleet, 0);
    fleet.admit(0, 250, Some(50)).unwrap();
    fleet.settle(0, 0, 100);
    fleet.join(0);
    let served = use_up(&mut fleet, 0);
    assert!(served > 0 && served <= share - 300, "{served} of {share}");
    fleet.join(1);
    fleet.join(2);
    fleet.pass(3_000);
    assert!(use_up(&mut fleet, 0) > share);
}

#[test]
fn what_cannot_be_divided_and_who_was_never_told_is_refused() {
    let server = Server::start();
    let mut connection = server.connect();
    let limits = Limits { concurrent_calls: NonZeroU32::new(2), ..minute_of(24_000) };
    let mut fleet = Fleet::new(&mut connection, 3, limits);
    for node in 0..3 {
        fleet.admit(node, 50, Some(50)).unwrap();
        fleet.settle(node, 0, 100);
        fleet.pass(5_000);
    }
    let late = fleet.node();
    fleet.nodes.push(late);
    fleet.all_alone();
    for node in 0..4 {
        let refused = fleet.admit(node, 50, Some(50)).unwrap_err();
        assert!(matches!(refused, Refused::Unleased { .. }), "node {node}: {refused:?}");
    }
    // Slots that can be divided are.
    let mut fleet = Fleet::new(fleet.server, 3, at_once(24));
    after_a_call(&mut fleet);
    fleet.pass(5_000);
    fleet.all_alone();
    for node in 0..3 {
        let mut open = 0;
        let refused = loop {
            match fleet.admit(node, 1, Some(1)) {
                Ok(()) => open += 1,
                Err(refused) => break refused,
            }
        };
        assert!((1..=2).contains(&open), "node {node}: {open}");
        assert!(matches!(refused, Refused::Concurrency { .. }), "node {node}: {refused:?}");
    }
}

#[test]
fn a_tenant_with_few_calls_keeps_its_share_until_calls_elsewhere_need_it() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, minute_of(24_000));
    after_a_call(&mut fleet);
    fleet.pass(120_000);
    assert!((0..3).all(|node| share(&fleet, node) >= 900));
    // A call that needs all there is gets it.
    let needy = |fleet: &mut Fleet<'_>| fleet.admit(0, 23_000, Some(900));
    assert!(needy(&mut fleet).is_err());
    fleet.pass(7_000);
    needy(&mut fleet).unwrap();
    fleet.nodes[0].open.clear();
    // Without calls there is none after ten minutes.
    fleet.pass(620_000);
    assert!((0..3).all(|node| share(&fleet, node) == 0));
}

#[test]
fn a_dead_nodes_share_comes_back_after_ten_minutes() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, minute_of(24_000));
    after_a_call(&mut fleet);
    let lost = share(&fleet, 0);
    assert!(lost >= 900);
    fleet.kill(0);
    fleet.pass(70_000);
    assert!(fleet.admit(1, 24_000 - lost / 2, Some(50)).is_err());
    assert!(fleet.admit(1, 24_000 - lost - 100, Some(50)).is_ok(), "its lease has come back");
    fleet.nodes[1].open.clear();
    fleet.pass(600_000);
    assert!(fleet.admit(1, 23_900, Some(50)).is_ok());
}

#[test]
fn a_quota_that_starts_anew_keeps_what_a_cut_off_node_may_use_of_it() {
    let server = Server::start();
    let mut connection = server.connect();
    let limit = Tokens::new(50_000);
    let quotas = Box::new([Quota::Tokens { limit, period: Period::Hourly }]);
    let mut fleet = Fleet::new(&mut connection, 2, Limits { quotas, ..Limits::default() });
    // Five minutes before the full hour.
    fleet.ms = (HOUR_SECONDS - START_SECONDS % HOUR_SECONDS - 300) * 1_000;
    after_a_call(&mut fleet);
    fleet.nodes[0].standing.set_up(false);
    fleet.pass(9 * 60_000);
    let hour = (HOUR_SECONDS - START_SECONDS % HOUR_SECONDS) * 1_000;
    while fleet.admit(0, 50, Some(50)).is_ok() {
        fleet.settle(0, 0, 100);
    }
    assert!(fleet.total_since(hour) > 0, "its share is of the new hour too");
    // The server gives the node up.
    fleet.pass(3 * 60_000);
    while fleet.admit(1, 500, Some(500)).is_ok() {
        fleet.settle(1, 0, 100);
    }
    let used = fleet.total_since(hour);
    assert!((48_000..=50_000).contains(&used), "{used}");
}

#[test]
fn a_suspended_machine_does_not_think_that_its_share_still_holds() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 1, minute_of(24_000));
    after_a_call(&mut fleet);
    fleet.all_alone();
    let ask = Ask {
        answers: 1,
        prompt: Tokens::new(50),
        output_named: Some(Tokens::new(50)),
        output_most: Tokens::new(50),
        prices: PRICES,
    };
    let account = &fleet.nodes[0].account;
    let now = fleet.now();
    drop(Admission::admit(account, &fleet.limits, &ask, now).unwrap());
    // Its monotonic clock has stood still for eleven minutes.
    let later = Now { utc_seconds: now.utc_seconds + 660, ..now };
    let refused = Admission::admit(account, &fleet.limits, &ask, later).unwrap_err();
    assert!(matches!(refused, Refused::Unleased { .. }), "{refused:?}");
}
