//! What can happen to the server, and what happens to calls meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_tests::certificate::Authority;
use gateway_tests::harness::{DEADLINE, Gateway, Redis, chat, user_says, wait_until};
use serde_json::Value;

use super::{Fleet, LIMIT};

/// Whether each line about the store says that it is up, in order.
fn changes(node: &Gateway) -> Vec<bool> {
    let change = |event: &Value| {
        let message = event["message"].as_str()?;
        message.starts_with("the store is ").then(|| message.contains("the store is up"))
    };
    node.log().events().iter().filter_map(change).collect()
}

/// Waits until the node names that as the store's problem: what it named before may be a wait in vain.
async fn said_of_the_store(node: &Gateway, problem: &str) {
    let problem = problem.to_lowercase();
    wait_until(&format!("{problem} is the store's problem"), async || {
        let status = node.admin_page("/status").await.unwrap().json().unwrap();
        status["store"]["problem"].as_str().is_some_and(|said| said.to_lowercase().contains(&problem))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_started_again_empty_is_told_what_was_used() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = fleet.hammer(4, &stop);
    tokio::time::sleep(Duration::from_millis(700)).await;
    redis.kill();
    fleet.up(false).await;
    assert_eq!(fleet.bound().await, 0);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(fleet.used() <= LIMIT, "{} of {LIMIT}", fleet.used());
    redis.restart().unwrap();
    fleet.up(true).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.unwrap();
    assert!(fleet.used() <= LIMIT, "{} of {LIMIT}", fleet.used());
    for node in &fleet.nodes {
        let mut changes_of_it = Vec::new();
        wait_until("it has said that the store is back", async || {
            changes_of_it = changes(node);
            changes_of_it.len() >= 3 && changes_of_it.last() == Some(&true)
        })
        .await
        .unwrap();
        assert!(
            changes_of_it.is_sorted_by(|before, after| before != after),
            "one line a change: {changes_of_it:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_delays_no_call_beyond_the_deadline_and_then_none() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    for node in 0..3 {
        assert!(fleet.call(node).await.status.is_success());
    }
    redis.freeze().unwrap();
    // More than is leased, so that the server is asked, and it says nothing until all of them are answered.
    let mut body = user_says("tell me all of it");
    body["max_tokens"] = 3_000.into();
    for node in &fleet.nodes {
        let reply = node.call(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
        assert!(reply.status.is_success(), "{reply:?}");
    }
    fleet.up(false).await;
    let status = fleet.nodes[0].admin_page("/status").await.unwrap().json().unwrap();
    assert_eq!(status["store"]["up"], false, "{status}");
    assert!(status["store"]["problem"].is_string(), "{status}");
    let asked = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    // Degraded serves a share on every node.
    fleet.hammer_beyond(fleet.used() + LIMIT / 8, 4).await;
    assert_eq!(fleet.bound().await, 0);
    let asked_now = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    assert!((asked - asked_now).abs() < 0.5, "no call asks a store that is down");
    redis.thaw().unwrap();
    fleet.up(true).await;
    fleet.hammer_beyond(0, 4).await;
    assert!(fleet.used() <= LIMIT, "{} of {LIMIT}", fleet.used());
}

#[tokio::test(flavor = "multi_thread")]
async fn refuse_answers_503_until_the_server_is_back() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(1, &redis.url(), "[store]\nwhen_down = \"refuse\"\n").await;
    assert!(fleet.call(0).await.status.is_success());
    redis.kill();
    fleet.up(false).await;
    let refused = fleet.call(0).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error().as_deref(), Some("store_unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    redis.restart().unwrap();
    fleet.up(true).await;
    assert!(fleet.call(0).await.status.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_errors_is_down_until_it_does_not() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(2, &redis.url(), "").await;
    assert!(fleet.call(0).await.status.is_success());
    for (break_it, mend_it, error) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ] {
        redis.command(break_it).unwrap();
        fleet.up(false).await;
        said_of_the_store(&fleet.nodes[0], error).await;
        assert!(fleet.call(0).await.status.is_success(), "degraded serves");
        redis.command(mend_it).unwrap();
        fleet.up(true).await;
        assert!(fleet.call(1).await.status.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_used_while_it_is_in_time_and_not_after() {
    let redis = Redis::start().unwrap();
    let way = redis.delayed().await.unwrap();
    let fleet = Fleet::start(2, &way.url(), "").await;
    way.set(Duration::from_millis(30));
    fleet.hammer_beyond(LIMIT / 4, 3).await;
    fleet.up(true).await;
    assert!(fleet.used() <= LIMIT, "{}", fleet.used());
    way.set(Duration::from_millis(600));
    fleet.up(false).await;
    way.set(Duration::ZERO);
    fleet.up(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_store_and_joins_later() {
    let mut redis = Redis::start().unwrap();
    redis.kill();
    let fleet = Fleet::start(1, &redis.url(), "").await;
    fleet.up(false).await;
    let refused = fleet.call(0).await;
    assert_eq!(refused.status, 503, "it has no share: {refused:?}");
    assert_eq!(refused.error().as_deref(), Some("store_unavailable"));
    redis.restart().unwrap();
    fleet.up(true).await;
    fleet.hammer_beyond(LIMIT / 2, 6).await;
    assert!(fleet.used() <= LIMIT, "{}", fleet.used());
}

/// A server that never answers any more, so that only the deadline can end the wait for it.
async fn a_call_that_the_server_does_not_answer(when_down: &str) -> (u16, Option<String>) {
    let redis = Redis::start().unwrap();
    let way = redis.delayed().await.unwrap();
    let fleet = Fleet::start(1, &way.url(), &format!("[store]\nwhen_down = \"{when_down}\"\n")).await;
    fleet.up(true).await;
    assert!(fleet.call(0).await.status.is_success());
    // Until nothing is leased any more, so that the call has to ask.
    wait_until("the lease is given back", async || {
        fleet.nodes[0].metric("gateway_fleet_leased_tokens", &[]).await.unwrap() < 0.5
    })
    .await
    .unwrap();
    way.set(Duration::from_secs(3600));
    let reply = fleet.call(0).await;
    (reply.status.as_u16(), reply.error())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_in_vain_for_the_server_is_served_or_refused_as_configured() {
    assert_eq!(a_call_that_the_server_does_not_answer("degraded").await, (200, None));
    let refused = (503, Some("store_unavailable".to_owned()));
    assert_eq!(a_call_that_the_server_does_not_answer("refuse").await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_still_loading_is_waited_for_and_knows_what_was_used() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(1, &redis.url(), "[store]\nwhen_down = \"refuse\"\n").await;
    fleet.hammer_beyond(LIMIT / 4, 4).await;
    // What the node has used is reported within a beat or two; then it goes to the disk.
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.fill(4_000).unwrap();
    redis.save().unwrap();
    redis.kill();
    fleet.up(false).await;
    redis.restart_slowly().unwrap();
    said_of_the_store(&fleet.nodes[0], "loading").await;
    redis.freeze().unwrap();
    assert_eq!(fleet.call(0).await.status, 503);
    redis.thaw().unwrap();
    fleet.up(true).await;
    fleet.hammer_beyond(0, 4).await;
    assert!(fleet.used() <= LIMIT, "{} of {LIMIT}", fleet.used());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_is_used_and_one_whose_certificate_is_unknown_is_not() {
    let authority = Authority::new().unwrap();
    let redis = Redis::start_with_tls(&authority).unwrap();
    let fleet = Fleet::trusting(&authority, 2, redis.tls_url().unwrap()).await;
    fleet.up(true).await;
    for node in 0..2 {
        assert!(fleet.call(node).await.status.is_success());
    }
    drop(fleet);
    let fleet = Fleet::trusting(&Authority::new().unwrap(), 1, redis.tls_url().unwrap()).await;
    fleet.up(false).await;
    said_of_the_store(&fleet.nodes[0], "certificate").await;
}
