//! A server that comes back without what it was told, or not for long.

use std::time::Duration;

use gateway_tests::harness::{Redis, wait_until};

use super::Fleet;

const QUOTA: u64 = 6_000;

async fn nodes_known(fleet: &Fleet, node: usize) -> Option<u64> {
    let status = fleet.nodes[node].admin_page("/status").await.unwrap().json().unwrap();
    status["store"]["nodes"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_again_leaves_each_node_its_own_share() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    wait_until("all nodes know of each other", async || {
        let known =
            [nodes_known(&fleet, 0).await, nodes_known(&fleet, 1).await, nodes_known(&fleet, 2).await];
        known == [Some(3); 3]
    })
    .await
    .unwrap();
    for _ in 0..3 {
        redis.kill();
        fleet.up(false).await;
        redis.restart().unwrap();
        wait_until("a node is back", async || {
            let mut back = 0.0;
            for node in &fleet.nodes {
                back += node.metric("gateway_store_up", &[]).await.unwrap();
            }
            back > 0.5
        })
        .await
        .unwrap();
        for node in 0..3 {
            assert_eq!(nodes_known(&fleet, node).await, Some(3), "node {node}");
        }
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
