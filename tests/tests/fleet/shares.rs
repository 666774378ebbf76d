//! What a fleet serves while its server is away: what each node has leased and its outage share, and nothing beyond the
//! limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_tests::harness::{Gateway, Protocol, Redis, chat, user_says};
use gateway_tests::runaway::most_within;
use tokio::task::JoinSet;

use super::{Fleet, LIMIT};

const MINUTE: Duration = Duration::from_mins(1);
/// Callers of each node.
const RUNAWAYS: usize = 20;
const FROZEN: Duration = Duration::from_secs(12);

/// What callers were answered: how often each status.
type Answers = BTreeMap<u16, u64>;

/// A caller that calls until `stop`, with a pause after each answer.
async fn caller(
    node: Arc<Gateway>,
    key: String,
    number: usize,
    pause: Duration,
    stop: Arc<AtomicBool>,
) -> Answers {
    let mut answers = Answers::new();
    let Ok(mut client) = node.connect(Protocol::Http1).await else { return answers };
    // The node's end is the caller's too.
    drop(node);
    while !stop.load(Ordering::Relaxed) {
        let mut body = user_says("tell me all of it");
        body["stream"] = number.is_multiple_of(2).into();
        let Ok(reply) = client.send(chat("chat", &key, &body).unwrap()).await else { return answers };
        *answers.entry(reply.status.as_u16()).or_default() += 1;
        let pause = if reply.status.is_success() { pause } else { pause.max(Duration::from_millis(20)) };
        tokio::time::sleep(pause).await;
    }
    answers
}

fn callers(fleet: &Fleet, each: usize, pause: Duration, stop: &Arc<AtomicBool>) -> JoinSet<Answers> {
    let mut tasks = JoinSet::new();
    for number in 0..each * fleet.nodes.len() {
        let node = Arc::clone(&fleet.nodes[number % fleet.nodes.len()]);
        tasks.spawn(caller(node, fleet.key.clone(), number, pause, Arc::clone(stop)));
    }
    tasks
}

async fn answers(tasks: JoinSet<Answers>) -> Answers {
    let mut sum = Answers::new();
    for (status, count) in tasks.join_all().await.into_iter().flatten() {
        *sum.entry(status).or_default() += count;
    }
    sum
}

fn worst_minute(fleet: &Fleet) -> u64 {
    most_within(&fleet.azure.timeline("chat"), MINUTE)
}

#[tokio::test(flavor = "multi_thread")]
async fn runaways_a_killed_node_and_a_frozen_server_are_within_the_limit() {
    let redis = Redis::start().unwrap();
    let mut fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = callers(&fleet, RUNAWAYS, Duration::from_millis(200), &stop);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let killed = fleet.nodes.pop().unwrap();
    Arc::into_inner(killed).unwrap().kill().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.freeze().unwrap();
    fleet.up(false).await;
    let bound = fleet.bound().await;
    tokio::time::sleep(FROZEN).await;
    redis.thaw().unwrap();
    fleet.up(true).await;
    tokio::time::sleep(MINUTE).await;
    stop.store(true, Ordering::Relaxed);
    let answers = answers(tasks).await;
    println!("{answers:?}, worst minute {} of {LIMIT}, bound {bound}", worst_minute(&fleet));
    assert!(worst_minute(&fleet) <= LIMIT, "{} of {LIMIT}", worst_minute(&fleet));
    assert_eq!(bound, 0);
    assert_eq!(answers.get(&503), None, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_room_left_are_served_throughout() {
    let redis = Redis::start().unwrap();
    let fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = callers(&fleet, 1, Duration::from_secs(2), &stop);
    tokio::time::sleep(Duration::from_secs(3)).await;
    redis.freeze().unwrap();
    fleet.up(false).await;
    tokio::time::sleep(FROZEN).await;
    redis.thaw().unwrap();
    fleet.up(true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Ordering::Relaxed);
    let answers = answers(tasks).await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&200], "{answers:?}");
}
