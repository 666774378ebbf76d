//! What a server forgets, the nodes report again.

use gateway_user::limits::{Limits, Occasion, Period, Quota};
use gateway_user::units::Tokens;

use super::model::Fleet;
use super::server::Server;

const QUOTA: u64 = 100_000;

fn of(period: Period) -> Limits {
    Limits { quotas: Box::new([Quota::Tokens { limit: Tokens::new(QUOTA), period }]), ..Limits::default() }
}

/// Calls that use up all that they hold.
fn uses(fleet: &mut Fleet<'_>, node: usize, tokens: u64) {
    for _ in 0..tokens / 1_000 {
        fleet.admit(node, 900, Some(100)).unwrap();
        fleet.settle(node, 0, 100);
        fleet.pass(100);
    }
}

/// How much of the quota a node gets, to within a percent of it.
fn left(fleet: &mut Fleet<'_>, node: usize) -> u64 {
    let sizes = (1_000..=QUOTA).rev().step_by(1_000);
    for tokens in sizes {
        if fleet.admit(node, tokens - 100, Some(100)).is_ok() {
            fleet.nodes[node].open.clear();
            return tokens;
        }
        fleet.ms += 600;
    }
    0
}

fn state(fleet: &mut Fleet<'_>) -> Vec<u8> {
    redis::cmd("GET").arg("tenant").query(fleet.server).unwrap()
}

fn restore(fleet: &mut Fleet<'_>, copy: Vec<u8>) {
    redis::cmd("SET").arg("tenant").arg(copy).exec(fleet.server).unwrap();
}

/// All nodes connect anew, and what they have to report is settled.
fn rejoin(fleet: &mut Fleet<'_>) {
    for node in 0..fleet.nodes.len() {
        fleet.sync(node, Occasion::Joining, false);
    }
    fleet.pass(3_000);
}

#[test]
fn nodes_without_calls_tell_an_empty_server_too() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 3, of(Period::Monthly));
    for node in 0..3 {
        uses(&mut fleet, node, 30_000);
    }
    // They give back what they have leased, and have nothing more to say.
    fleet.pass(10_000);
    redis::cmd("FLUSHALL").exec(fleet.server).unwrap();
    rejoin(&mut fleet);
    let left = left(&mut fleet, 0);
    assert!((9_000..=10_000).contains(&left), "{left} are left of 10,000");
}

#[test]
fn a_copy_that_knows_a_node_not_yet_is_told_all_of_it() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Monthly));
    uses(&mut fleet, 0, 30_000);
    let copy = state(&mut fleet);
    fleet.pass(1_000);
    uses(&mut fleet, 1, 50_000);
    fleet.pass(10_000);
    restore(&mut fleet, copy);
    rejoin(&mut fleet);
    let left = left(&mut fleet, 0);
    assert!((19_000..=20_000).contains(&left), "{left} are left of 20,000");
}

#[test]
fn a_copy_from_long_ago_is_told_what_came_after_it() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Monthly));
    uses(&mut fleet, 0, 20_000);
    uses(&mut fleet, 1, 20_000);
    fleet.pass(10_000);
    let copy = state(&mut fleet);
    uses(&mut fleet, 0, 20_000);
    uses(&mut fleet, 1, 20_000);
    fleet.pass(20 * 60_000);
    restore(&mut fleet, copy);
    rejoin(&mut fleet);
    let left = left(&mut fleet, 0);
    assert!((19_000..=20_000).contains(&left), "{left} are left of 20,000");
}

#[test]
fn nothing_is_leased_from_a_copy_before_the_others_have_reported() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Monthly));
    uses(&mut fleet, 0, 10_000);
    uses(&mut fleet, 1, 10_000);
    fleet.pass(10_000);
    let copy = state(&mut fleet);
    uses(&mut fleet, 1, 70_000);
    fleet.sync(0, Occasion::Joining, false);
    fleet.pass(10_000);
    restore(&mut fleet, copy);
    fleet.sync(0, Occasion::Joining, false);
    assert!(fleet.admit(0, 50_000, Some(100)).is_err(), "the other has used nearly all");
}

#[test]
fn a_node_that_was_given_up_is_charged_what_it_used_and_no_more() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Monthly));
    uses(&mut fleet, 0, 20_000);
    // It is unheard of from here on, with a call open.
    fleet.admit(0, 29_900, Some(100)).unwrap();
    for _ in 0..12 {
        fleet.ms += 60_000;
        fleet.sync(1, Occasion::Asked, false);
    }
    let without = left(&mut fleet, 1);
    assert!((30_000..50_000).contains(&without), "{without} are left: all that it had leased counts as used");
    fleet.settle(0, 0, 100);
    fleet.sync(0, Occasion::Joining, false);
    fleet.pass(10_000);
    let left = left(&mut fleet, 1);
    assert!((49_000..=50_000).contains(&left), "{left} are left of 50,000");
}

#[test]
fn a_tenant_without_calls_for_days_is_charged_once() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Yearly));
    uses(&mut fleet, 0, 20_000);
    uses(&mut fleet, 1, 20_000);
    for _ in 0..60 {
        fleet.ms += 3_600_000;
        for node in 0..2 {
            fleet.sync(node, Occasion::Renewal, false);
        }
    }
    fleet.sync(0, Occasion::Asked, false);
    fleet.sync(1, Occasion::Joining, false);
    fleet.pass(3_000);
    let left = left(&mut fleet, 0);
    assert!((59_000..=60_000).contains(&left), "{left} are left of 60,000");
}

#[test]
fn of_nodes_that_are_gone_few_are_remembered() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut fleet = Fleet::new(&mut connection, 2, of(Period::Yearly));
    for _ in 0..300 {
        uses(&mut fleet, 0, 1_000);
        fleet.kill(0);
        fleet.pass(5_000);
        fleet.limits = Limits { quotas: Box::new([]), ..fleet.limits.clone() };
    }
    fleet.pass(700_000);
    let size = state(&mut fleet).len();
    assert!(size < 30_000, "{size} bytes");
}
