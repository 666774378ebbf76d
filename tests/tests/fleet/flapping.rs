//! A server that comes back without what it was told, or not for long.

use std::time::Duration;

use gateway_tests::harness::Redis;

use super::Fleet;

const QUOTA: u64 = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_again_and_again_leaves_each_node_its_share() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    for node in 0..3 {
        assert!(fleet.call(node).await.status.is_success());
    }
    for _ in 0..3 {
        redis.kill();
        fleet.up(false).await;
        for node in 0..3 {
            let reply = fleet.call(node).await;
            assert!(reply.status.is_success(), "node {node}: {reply:?}");
        }
        redis.restart().unwrap();
        fleet.up(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_emptied_while_it_is_used_is_told_by_nodes_without_calls_too() {
    let redis = Redis::start().unwrap();
    let quota = format!("[tiers.default]\ntoken_quota = {{ tokens = {QUOTA}, period = \"yearly\" }}\n");
    let fleet = Fleet::start(3, &redis.url(), &quota).await;
    fleet.up(true).await;
    let mut node = 0;
    while fleet.used() < QUOTA * 3 / 4 {
        fleet.call(node % 3).await;
        node += 1;
    }
    // Until nothing is leased, and nobody has anything to report.
    tokio::time::sleep(Duration::from_secs(5)).await;
    redis.command("FLUSHALL").unwrap();
    let mut refused = 0;
    while refused < 10 {
        if !fleet.call(0).await.status.is_success() {
            refused += 1;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    assert!(fleet.used() <= QUOTA, "{} of {QUOTA}", fleet.used());
}
