//! What survives: the gateway is killed, stopped, and given directories that it cannot use.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests unwrap, and so do their helpers; they run one at a time"
)]

#[path = "durable/adjust.rs"]
mod adjust;
#[path = "durable/disk.rs"]
mod disk;
#[path = "durable/kills.rs"]
mod kills;
#[path = "durable/restarts.rs"]
mod restarts;
#[path = "durable/usage.rs"]
mod usage;

use std::time::Duration;

use gateway_tests::harness::{Client, Gateway, Reply, Site, chat, user_says, wait_until};
use gateway_tests::simulator::{Options, Simulator};
use http::StatusCode;
use serde_json::Value;

/// How long a slow disk takes each time. A commit waits for it at least once: without a journal a kill would lose what was
/// used in up to twice this.
const SLOW: Duration = Duration::from_secs(1);

/// A simulator that keeps no requests.
fn azure() -> Simulator {
    Simulator::start(Options { recorded: 0, ..Options::default() }).unwrap()
}

/// A gateway of that site that can call Azure.
async fn started(site: Site) -> Gateway {
    let gateway = site.start().unwrap();
    gateway.ready().await.unwrap();
    gateway
}

/// One call for at most `output` tokens.
async fn call(client: &mut Client, key: &str, output: u64, stream: bool) -> anyhow::Result<Reply> {
    let mut body = user_says("What will be left of this?");
    body["max_tokens"] = output.into();
    body["stream"] = stream.into();
    client.send(chat("chat", key, &body)?).await
}

/// What the running gateway's ledger says. An answer waits for a commit, and is refused where that takes too long.
async fn ledger(gateway: &Gateway, page: &'static str) -> Value {
    let mut reply = None;
    wait_until("the ledger is told", async || {
        let told = gateway.admin_page(page).await.unwrap();
        reply.insert(told).status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await
    .unwrap();
    let reply = reply.unwrap();
    assert!(reply.status.is_success(), "{reply:?}");
    reply.json().unwrap()
}

/// What the running gateway's ledger has in total.
async fn total(gateway: &Gateway) -> Value {
    ledger(gateway, "/usage?by=&since=1d").await["total"].take()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap()
}
