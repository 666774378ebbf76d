//! Three gateways, one tenant, one budget, and a Redis server to which everything happens.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::harness::{Config, Gateway, Protocol, Redis, Reply, Site, chat, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Options, Simulator};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

const LIMIT: u64 = 20_000;
const TENANT: &str = "acme";

/// Gateways with the same tenants and the same store.
struct Fleet {
    azure: Simulator,
    nodes: Vec<Arc<Gateway>>,
    key: String,
    _turn: MutexGuard<'static, ()>,
}

/// One fleet at a time: on a machine too busy to answer in time a store counts as down.
static TURN: Mutex<()> = Mutex::const_new(());

impl Fleet {
    async fn start(nodes: usize, url: &str, more: &str) -> Self {
        let turn = TURN.lock().await;
        let azure = Simulator::start(Options::default()).unwrap();
        azure.behave(Behaviour { tokens: 100, ..Behaviour::default() });
        let config = Config::for_simulator(&azure)
            .unwrap()
            .with(&format!("[tiers.default]\ntokens_per_minute = {LIMIT}\n[store]\nurl = \"{url}\"\n"))
            .unwrap()
            .with(more)
            .unwrap();
        let sites: Vec<_> = (0..nodes).map(|_| Site::new(&azure, &config).unwrap()).collect();
        let key = sites[0].add_tenant(TENANT, None).unwrap().primary;
        let tenants = sites[0].path().join("tenants.toml");
        for site in &sites[1..] {
            std::fs::copy(&tenants, site.path().join("tenants.toml")).unwrap();
        }
        let nodes = sites.into_iter().map(|site| Arc::new(site.start().unwrap())).collect();
        Self { azure, nodes, key, _turn: turn }
    }

    async fn call(&self, node: usize) -> Reply {
        call(&self.nodes[node], &self.key).await
    }

    /// Callers that call every node as fast as they are answered, until `stop`; gives the longest that one waited.
    fn hammer(&self, callers: usize, stop: &Arc<AtomicBool>) -> tokio::task::JoinSet<Duration> {
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers * self.nodes.len() {
            let node = Arc::clone(&self.nodes[caller % self.nodes.len()]);
            let (key, stop) = (self.key.clone(), Arc::clone(stop));
            tasks.spawn(async move {
                let mut client = node.connect(Protocol::Http1).await.unwrap();
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let mut body = user_says("tell me all of it");
                    // Half of the callers stream, a third name a limit.
                    body["stream"] = (caller % 2 == 0).into();
                    if caller % 3 == 0 {
                        body["max_tokens"] = json!(150);
                    }
                    let started = Instant::now();
                    let reply = client.send(chat("chat", &key, &body).unwrap()).await.unwrap();
                    longest = longest.max(started.elapsed());
                    if !reply.status.is_success() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                longest
            });
        }
        tasks
    }

    /// Hammers for so long.
    async fn hammer_for(&self, callers: usize, time: Duration) -> Duration {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = self.hammer(callers, &stop);
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await.into_iter().max().unwrap()
    }

    fn used(&self) -> u64 {
        self.azure.all_totals().tokens()
    }

    /// The sum of what the nodes say that they may overshoot by.
    async fn bound(&self) -> u64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric("gateway_fleet_overshoot_bound_tokens", &[("tenant", TENANT)]).await.unwrap();
        }
        whole(sum)
    }

    async fn up(&self, up: bool) {
        for node in &self.nodes {
            let wanted = f64::from(u8::from(up));
            wait_until("the nodes see the store as they should", async || {
                (node.metric("gateway_store_up", &[]).await.unwrap() - wanted).abs() < 0.5
            })
            .await
            .unwrap();
        }
    }
}

async fn call(node: &Gateway, key: &str) -> Reply {
    node.call(chat("chat", key, &user_says("tell me all of it")).unwrap()).await.unwrap()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of tokens")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn changes(node: &Gateway, message: &str) -> usize {
    node.log()
        .events()
        .iter()
        .filter(|event| event["message"].as_str().is_some_and(|m| m.contains(message)))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_share_one_budget() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    // What one node does not use, another gets: nearly all is used before any of it comes back.
    for _ in 0..5 {
        fleet.hammer_for(6, Duration::from_secs(2)).await;
        if fleet.used() > LIMIT * 9 / 10 {
            break;
        }
    }
    let used = fleet.used();
    assert!(used <= LIMIT, "{used} tokens of {LIMIT} were generated");
    assert!(used > LIMIT * 9 / 10, "only {used} tokens of {LIMIT} were generated");
    let refused = fleet.call(0).await;
    assert_eq!(refused.error().as_deref(), Some("token_budget_exceeded"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 30, "the fleet's window tells when to come back: {wait} s");
    for node in &fleet.nodes {
        assert!((node.metric("gateway_fleet_nodes", &[]).await.unwrap() - 3.0).abs() < 0.5);
        let served = node.metric("aoai_tokens_consumed_total", &[]).await.unwrap();
        assert!(served > 0.0, "a node served nothing");
    }
    let status = fleet.nodes[0].admin_page("/status").await.unwrap().json().unwrap();
    assert_eq!(status["store"]["up"], true, "{status}");
    assert_eq!(status["store"]["nodes"], 3, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn most_calls_ask_nobody() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(1, &redis.url(), "[tiers.default]\ntokens_per_minute = 10000000\n").await;
    let before = redis.command("DBSIZE").unwrap();
    assert_eq!(before, ":1", "only the nodes are known before the first call");
    let calls = AtomicU64::new(0);
    let mut client = fleet.nodes[0].connect(Protocol::Http1).await.unwrap();
    for _ in 0..300 {
        let mut body = user_says("tell me all of it");
        body["max_tokens"] = json!(150);
        let reply = client.send(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
        assert!(reply.status.is_success(), "{reply:?}");
        calls.fetch_add(1, Ordering::Relaxed);
    }
    let asked = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    assert!(asked < 30.0, "{asked} requests for 300 calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_gives_its_lease_back_and_a_killed_one_does_not_at_once() {
    let redis = Redis::start().unwrap();
    let mut fleet = Fleet::start(3, &redis.url(), "").await;
    for node in 0..3 {
        assert!(fleet.call(node).await.status.is_success());
    }
    let (first, second) = (fleet.nodes.pop().unwrap(), fleet.nodes.pop().unwrap());
    let leased = second.metric("gateway_fleet_leased_tokens", &[]).await.unwrap();
    assert!(leased > 100.0, "{leased}");
    Arc::into_inner(first).unwrap().terminate().unwrap();
    Arc::into_inner(second).unwrap().kill().unwrap();
    wait_until("the dead are not counted any more", async || {
        (fleet.nodes[0].metric("gateway_fleet_nodes", &[]).await.unwrap() - 1.0).abs() < 0.5
    })
    .await
    .unwrap();
    fleet.hammer_for(6, Duration::from_secs(3)).await;
    let used = fleet.used();
    assert!(used <= LIMIT - whole(leased) + 100, "{used} with {leased} leased to the dead");
    // Only what the killed one had leased is missing, not what the stopped one gave back.
    assert!(used > LIMIT - whole(leased) - LIMIT / 10, "{used} with {leased} leased to the dead");
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
    // In this order: what is used between the two readings is counted twice, not left out.
    let bound = fleet.bound().await;
    let at_most = fleet.used() + bound;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(fleet.used() <= at_most, "{} of {at_most}", fleet.used());
    redis.restart().unwrap();
    fleet.up(true).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    assert!(fleet.used() <= at_most.max(LIMIT), "{} of {at_most}", fleet.used());
    for node in &fleet.nodes {
        assert_eq!(changes(node, "the store is down"), 1, "one line a change");
        assert_eq!(changes(node, "the store is up"), 2, "{:?}", node.log().lines());
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
    fleet.up(false).await;
    let status = fleet.nodes[0].admin_page("/status").await.unwrap().json().unwrap();
    assert_eq!(status["store"]["up"], false, "{status}");
    assert!(status["store"]["problem"].is_string(), "{status}");
    let asked = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    let (before, bound) = (fleet.used(), fleet.bound().await);
    fleet.hammer_for(4, Duration::from_secs(2)).await;
    let served = fleet.used() - before;
    assert!(served > LIMIT / 2, "degraded serves a share on every node: {served}");
    assert!(served <= bound, "{served} of a bound of {bound}");
    let asked_now = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    assert!((asked - asked_now).abs() < 0.5, "no call asks a store that is down");
    redis.thaw().unwrap();
    fleet.up(true).await;
    fleet.hammer_for(4, Duration::from_secs(1)).await;
    assert!(fleet.used() <= LIMIT + bound, "{} of {LIMIT} and {bound}", fleet.used());
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
        let status = fleet.nodes[0].admin_page("/status").await.unwrap().json().unwrap();
        let said = status["store"]["problem"].as_str().unwrap().to_uppercase();
        assert!(said.contains(error), "{said}");
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
    fleet.hammer_for(3, Duration::from_secs(2)).await;
    fleet.up(true).await;
    assert!(fleet.used() <= LIMIT && fleet.used() > LIMIT / 4, "{}", fleet.used());
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
    assert!(fleet.call(0).await.status.is_success(), "its share is small, and there");
    redis.restart().unwrap();
    fleet.up(true).await;
    fleet.hammer_for(6, Duration::from_secs(2)).await;
    assert!(fleet.used() <= LIMIT && fleet.used() > LIMIT / 2, "{}", fleet.used());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_holds_but_for_what_was_leased_before() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(2, &redis.url(), "").await;
    for node in 0..2 {
        assert!(fleet.call(node).await.status.is_success());
    }
    let config = Config::for_simulator(&fleet.azure)
        .unwrap()
        .with(&format!("[tiers.default]\ntokens_per_minute = 3000\n[store]\nurl = \"{}\"\n", redis.url()))
        .unwrap();
    for node in &fleet.nodes {
        node.site().configure(&config).unwrap();
        wait_until("the limit is the new one", async || {
            let limit = node.metric("gateway_budget_limit_tokens", &[("tenant", TENANT)]).await.unwrap();
            (limit - 3_000.0).abs() < 0.5
        })
        .await
        .unwrap();
    }
    let bound = fleet.bound().await;
    fleet.hammer_for(4, Duration::from_secs(2)).await;
    assert!(fleet.used() <= 3_000 + bound, "{} with {bound}", fleet.used());
}
