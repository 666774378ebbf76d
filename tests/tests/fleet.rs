//! Three gateways, one tenant, one budget, and a Redis server to which everything happens.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

#[path = "fleet/flapping.rs"]
mod flapping;
#[path = "fleet/ledger.rs"]
mod ledger;
#[path = "fleet/outages.rs"]
mod outages;
#[path = "fleet/shares.rs"]
mod shares;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::certificate::Authority;
use gateway_tests::harness::{
    Client, Config, DEADLINE, Gateway, Protocol, Redis, Reply, Site, Streaming, chat, user_says, wait_until,
};
use gateway_tests::simulator::{Behaviour, Fault, Options, Simulator};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

const LIMIT: u64 = 20_000;
const TENANT: &str = "acme";
/// Leases are renewed a few times meanwhile.
const RENEWALS: Duration = Duration::from_secs(3);

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
        Self::with(nodes, url, more, |_| {}).await
    }

    /// Nodes that trust this authority and no other.
    async fn trusting(authority: &Authority, nodes: usize, url: String) -> Self {
        let pem = authority.pem();
        Self::with(nodes, &url, "", |site| {
            let roots = site.path().join("roots.crt");
            std::fs::write(&roots, pem).unwrap();
            site.set_environment("SSL_CERT_FILE", roots);
        })
        .await
    }

    async fn with(nodes: usize, url: &str, more: &str, prepare: impl Fn(&mut Site)) -> Self {
        let turn = TURN.lock().await;
        let azure = Simulator::start(Options { timed: true, ..Options::default() }).unwrap();
        azure.behave(Behaviour { tokens: 100, ..Behaviour::default() });
        let config = Config::for_simulator(&azure)
            .unwrap()
            .with(&format!("[tiers.default]\ntokens_per_minute = {LIMIT}\n[store]\nurl = \"{url}\"\n"))
            .unwrap()
            .with(more)
            .unwrap();
        let mut sites: Vec<_> = (0..nodes).map(|_| Site::new(&azure, &config).unwrap()).collect();
        sites.iter_mut().for_each(prepare);
        let key = sites[0].add_tenant(TENANT, None).unwrap().primary;
        let tenants = sites[0].path().join("tenants.toml");
        for site in &sites[1..] {
            std::fs::copy(&tenants, site.path().join("tenants.toml")).unwrap();
        }
        let nodes: Vec<_> = sites.into_iter().map(|site| Arc::new(site.start().unwrap())).collect();
        for node in &nodes {
            node.ready().await.unwrap();
        }
        Self { azure, nodes, key, _turn: turn }
    }

    async fn call(&self, node: usize) -> Reply {
        call(&self.nodes[node], &self.key).await
    }

    /// Callers that call every node as fast as they are answered, until each is refused after `stop`.
    fn hammer(&self, callers: usize, stop: &Arc<AtomicBool>) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers * self.nodes.len() {
            let node = Arc::clone(&self.nodes[caller % self.nodes.len()]);
            let (key, stop) = (self.key.clone(), Arc::clone(stop));
            tasks.spawn(async move {
                let mut client = node.connect(Protocol::Http1).await.unwrap();
                loop {
                    let last = stop.load(Ordering::Relaxed);
                    let mut body = user_says("tell me all of it");
                    // Half of the callers stream, a third name a limit.
                    body["stream"] = (caller % 2 == 0).into();
                    if caller % 3 == 0 {
                        body["max_tokens"] = json!(150);
                    }
                    let reply = client.send(chat("chat", &key, &body).unwrap()).await.unwrap();
                    if reply.status.is_success() {
                        continue;
                    }
                    if last {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        tasks
    }

    /// Hammers for as long as leases take to move, until more than `enough` tokens were used since the start, and then until
    /// every caller was refused.
    async fn hammer_beyond(&self, enough: u64, callers: usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = self.hammer(callers, &stop);
        tokio::time::sleep(RENEWALS).await;
        let used = wait_until("enough is used", async || self.used() > enough).await;
        assert!(used.is_ok(), "{} of {enough} are used", self.used());
        stop.store(true, Ordering::Relaxed);
        timeout(DEADLINE, tasks.join_all()).await.unwrap();
    }

    fn used(&self) -> u64 {
        self.azure.all_totals().tokens()
    }

    /// The sum of what the nodes say that they may overshoot by.
    async fn bound(&self) -> u64 {
        self.sum("gateway_fleet_overshoot_bound_tokens").await
    }

    /// What a metric of the tenant is on all nodes.
    async fn sum(&self, metric: &str) -> u64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric(metric, &[("tenant", TENANT)]).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_share_one_budget() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    let began = Instant::now();
    // What one node does not use, another gets: nearly all is used before any of it comes back.
    fleet.hammer_beyond(LIMIT * 9 / 10, 6).await;
    let mut refused = fleet.call(0).await;
    // What little the others had left may have come to this node meanwhile.
    wait_until("nothing is left", async || {
        if refused.status.is_success() {
            refused = fleet.call(0).await;
        }
        !refused.status.is_success()
    })
    .await
    .unwrap();
    let used = fleet.used();
    assert!(used <= LIMIT, "{used} tokens of {LIMIT} were generated");
    assert_eq!(refused.error().as_deref(), Some("token_budget_exceeded"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait + began.elapsed().as_secs() > 40, "the fleet's window tells when to come back: {wait} s");
    for node in &fleet.nodes {
        wait_until("the node knows of all three", async || {
            (node.metric("gateway_fleet_nodes", &[]).await.unwrap() - 3.0).abs() < 0.5
        })
        .await
        .unwrap();
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
    fleet.up(true).await;
    let before = redis.command("DBSIZE").unwrap();
    assert_eq!(before, ":2", "only the nodes are known before the first call, and which memory this is");
    let mut client = fleet.nodes[0].connect(Protocol::Http1).await.unwrap();
    let started = Instant::now();
    for _ in 0..300 {
        let mut body = user_says("tell me all of it");
        body["max_tokens"] = json!(150);
        let reply = client.send(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
        assert!(reply.status.is_success(), "{reply:?}");
    }
    let asked = fleet.nodes[0].metric("gateway_fleet_lease_seconds_count", &[]).await.unwrap();
    // Beside what the calls ask for, a lease is renewed once a second.
    let renewed = started.elapsed().as_secs_f64();
    assert!(asked < 30.0 + renewed, "{asked} requests for 300 calls in {renewed} s");
}

/// By a call that is open when its node is killed.
const HELD: u64 = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_gives_its_lease_back_and_a_killed_one_does_not_at_once() {
    let redis = Redis::start().unwrap();
    let mut fleet = Fleet::start(3, &redis.url(), "").await;
    for node in 0..3 {
        assert!(fleet.call(node).await.status.is_success());
    }
    let (stopped, killed) = (fleet.nodes.pop().unwrap(), fleet.nodes.pop().unwrap());
    // What an open call holds is leased until the node is dead, however long that takes.
    let stall = Some(Fault::Stall { after_chunks: 1 });
    fleet.azure.behave_once(Behaviour { fault: stall, ..Behaviour::default() });
    let mut body = user_says("tell me all of it");
    body["stream"] = true.into();
    body["max_tokens"] = json!(HELD);
    let mut client = killed.connect(Protocol::Http1).await.unwrap();
    let mut open = client.stream(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
    open.next().await.unwrap().unwrap();
    let leased = whole(killed.metric("gateway_fleet_leased_tokens", &[]).await.unwrap());
    assert!(leased >= HELD, "{leased}");
    Arc::into_inner(killed).unwrap().kill().unwrap();
    Arc::into_inner(stopped).unwrap().terminate().unwrap();
    wait_until("the dead are not counted any more", async || {
        (fleet.nodes[0].metric("gateway_fleet_nodes", &[]).await.unwrap() - 1.0).abs() < 0.5
    })
    .await
    .unwrap();
    // Only what the killed one had leased is missing, and its outage share, not what the stopped one gave back.
    fleet.hammer_beyond(LIMIT - leased - LIMIT / 5, 6).await;
    let used = fleet.used();
    assert!(used <= LIMIT - HELD + 100, "{used} with {HELD} held by the dead");
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
    let leased = fleet.sum("gateway_fleet_leased_tokens").await;
    fleet.hammer_beyond(0, 4).await;
    assert!(fleet.used() <= 3_000 + leased, "{} with {leased}", fleet.used());
}

/// Calls that are open until they are dropped.
#[derive(Default)]
struct OpenCalls(Vec<(Client, Streaming)>);

impl OpenCalls {
    /// Opens as many on a node as it lets in; gives the reason of the refusal.
    async fn fill(&mut self, fleet: &Fleet, node: usize) -> String {
        loop {
            let mut body = user_says("tell me all of it");
            body["stream"] = true.into();
            body["max_tokens"] = json!(2_000);
            let mut client = fleet.nodes[node].connect(Protocol::Http1).await.unwrap();
            let mut answer = client.stream(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
            if !answer.status.is_success() {
                let text = answer.rest_text().await.unwrap();
                let refusal: serde_json::Value = serde_json::from_str(&text).unwrap();
                return refusal["error"].as_str().unwrap().to_owned();
            }
            self.0.push((client, answer));
        }
    }
}

const AT_ONCE: usize = 9;

/// Nodes on which answers take minutes, with one limit for calls at once.
async fn fleet_of_long_calls(nodes: usize, redis: &Redis) -> Fleet {
    let limits = format!("[tiers.default]\ntokens_per_minute = 10000000\nconcurrent_calls = {AT_ONCE}\n");
    let fleet = Fleet::start(nodes, &redis.url(), &limits).await;
    let chunk_delay = Duration::from_millis(100);
    fleet.azure.behave(Behaviour { tokens: 2_000, chunk_delay, ..Behaviour::default() });
    fleet.up(true).await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_open_at_once_are_one_limit_for_the_fleet_and_slots_move_between_nodes() {
    let redis = Redis::start().unwrap();
    let fleet = fleet_of_long_calls(3, &redis).await;
    let mut open: [OpenCalls; 3] = Default::default();
    let sum = |open: &[OpenCalls; 3]| open.iter().map(|calls| calls.0.len()).sum::<usize>();
    wait_until("every slot is taken", async || {
        for (node, calls) in open.iter_mut().enumerate() {
            let reason = calls.fill(&fleet, node).await;
            assert_eq!(reason, "concurrency_limit");
        }
        assert!(sum(&open) <= AT_ONCE, "{} are open", sum(&open));
        sum(&open) == AT_ONCE
    })
    .await
    .unwrap();
    // The last node gets what the others let go of.
    open[0].0.clear();
    open[1].0.clear();
    wait_until("the slots have moved", async || {
        open[2].fill(&fleet, 2).await;
        assert!(open[2].0.len() <= AT_ONCE, "{} are open", open[2].0.len());
        open[2].0.len() == AT_ONCE
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_killed_node_come_back_when_its_lease_expires() {
    let redis = Redis::start().unwrap();
    let mut fleet = fleet_of_long_calls(2, &redis).await;
    let mut lost = OpenCalls::default();
    lost.fill(&fleet, 1).await;
    assert_eq!(lost.0.len(), AT_ONCE);
    Arc::into_inner(fleet.nodes.pop().unwrap()).unwrap().kill().unwrap();
    let mut open = OpenCalls::default();
    open.fill(&fleet, 0).await;
    assert!(open.0.is_empty(), "the dead node's lease has not expired yet");
    wait_until("its slots are back", async || {
        open.fill(&fleet, 0).await;
        open.0.len() == AT_ONCE
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_part_of_the_minute_comes_back_a_minute_after_its_lease_expired() {
    let redis = Redis::start().unwrap();
    let mut fleet = Fleet::start(2, &redis.url(), "").await;
    fleet.up(true).await;
    let mut body = user_says("tell me all of it");
    body["max_tokens"] = json!(8_000);
    let dead = fleet.nodes.pop().unwrap();
    assert!(dead.call(chat("chat", &fleet.key, &body).unwrap()).await.unwrap().status.is_success());
    let leased = whole(dead.metric("gateway_fleet_leased_tokens", &[]).await.unwrap());
    assert!(leased > LIMIT / 4, "{leased}");
    Arc::into_inner(dead).unwrap().kill().unwrap();
    let killed = Instant::now();
    fleet.hammer_beyond(LIMIT - leased - LIMIT / 5, 6).await;
    assert!(fleet.used() <= LIMIT - leased + 200, "{} with {leased} leased to the dead", fleet.used());
    // The lease lasts for five seconds, and what may have been used of it counts for a minute more, as does what was used
    // since.
    let last = Instant::now().max(killed + Duration::from_secs(5));
    tokio::time::sleep_until((last + Duration::from_secs(62)).into()).await;
    let before = fleet.used();
    fleet.hammer_beyond(before + LIMIT - leased / 2, 6).await;
    let used = fleet.used() - before;
    assert!(used <= LIMIT, "{used} of {LIMIT} in a minute");
}
