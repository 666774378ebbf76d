//! What a fleet has used, asked of any node and of none.

use std::sync::Arc;

use bytes::Bytes;
use gateway_tests::harness::{Client, Gateway, Protocol, Redis, Reply, Site, chat, user_says, wait_until};
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde_json::Value;

use super::Fleet;

const CALLS: usize = 12;

/// Plain calls and streams on every node.
async fn calls(fleet: &Fleet) {
    for node in &fleet.nodes {
        let mut client = node.connect(Protocol::Http1).await.unwrap();
        for number in 0..CALLS {
            let mut body = user_says("tell me all of it");
            body["stream"] = (number % 2 == 0).into();
            body["max_tokens"] = 50.into();
            let reply = client.send(chat("chat", &fleet.key, &body).unwrap()).await.unwrap();
            assert!(reply.status.is_success(), "{reply:?}");
        }
    }
}

/// What `aoai-gateway usage` says.
fn told(site: &Site) -> Value {
    let by = "tenant,deployment,model,kind";
    let output = site.run(&["usage", "--since", "1d", "--by", by, "--format", "json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a node says at its admin address; nothing where its store was not in time.
async fn asked(node: &Gateway) -> Option<Value> {
    let reply = node.admin_page("/usage?since=1d&by=tenant,deployment,model,kind").await.unwrap();
    assert!(reply.status.is_success() || reply.status == 503, "{reply:?}");
    reply.status.is_success().then(|| reply.json().unwrap())
}

/// Waits until a node knows of all that was used, and gives what it says.
async fn agreed(fleet: &Fleet, node: &Gateway) -> Value {
    let mut usage = None;
    wait_until("all of it is written", async || {
        usage = asked(node).await;
        usage.as_ref().is_some_and(|usage| agrees_with_azure(fleet, usage))
    })
    .await
    .unwrap();
    usage.unwrap()
}

/// A node's answer to giving a token back.
async fn adjusted(node: &Gateway) -> Reply {
    let asked = serde_json::json!({"tenant": "acme", "tokens": -1, "note": "why", "force": true});
    let request = Request::post("/usage/adjust").header(CONTENT_TYPE, "application/json");
    let request = request.body(Bytes::from(asked.to_string())).unwrap();
    Box::pin(Client::plain(node.admin())).await.unwrap().send(request).await.unwrap()
}

fn agrees_with_azure(fleet: &Fleet, usage: &Value) -> bool {
    let (total, truth) = (&usage["total"], fleet.azure.all_totals());
    total["calls"] == truth.calls
        && total["prompt_tokens"] == truth.prompt_tokens
        && total["completion_tokens"] == truth.generated_tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_a_fleet_agrees_with_prometheus_and_with_azure() {
    let redis = Redis::start().unwrap();
    let mut fleet = Fleet::start(3, &redis.url(), "").await;
    fleet.up(true).await;
    calls(&fleet).await;
    agreed(&fleet, &fleet.nodes[1]).await;
    let usage = agreed(&fleet, &fleet.nodes[0]).await;
    let same = told(fleet.nodes[2].site());
    // Not since when it counts: that is another hour after a full one.
    assert_eq!((&same["rows"], &same["total"]), (&usage["rows"], &usage["total"]));
    let rows = usage["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "one of answers in one piece, one of streams: {usage}");
    for row in rows {
        let labels = ["tenant", "deployment", "model", "kind"].map(|key| (key, row[key].as_str().unwrap()));
        for (figure, metric) in [
            ("prompt_tokens", "aoai_prompt_tokens_total"),
            ("completion_tokens", "aoai_completion_tokens_total"),
            ("tokens", "aoai_tokens_consumed_total"),
        ] {
            let mut sum = 0.0;
            for node in &fleet.nodes {
                sum += node.metric(metric, &labels).await.unwrap();
            }
            let exact = u32::try_from(row[figure].as_u64().unwrap()).unwrap();
            assert!((sum - f64::from(exact)).abs() < 0.1, "{figure} of {row}: {sum}");
        }
    }

    // Quotas are the fleet's: one node cannot give back what another has leased on them.
    let refused = adjusted(&fleet.nodes[0]).await;
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED, "{refused:?}");
    assert!(refused.text().unwrap().contains("the books of a fleet"), "{refused:?}");

    // The last calls of a node that stops in order are in it, and what a killed one has written.
    calls(&fleet).await;
    let (stopped, killed) = (fleet.nodes.pop().unwrap(), fleet.nodes.pop().unwrap());
    let (site, status) = Arc::into_inner(stopped).unwrap().terminate().unwrap();
    assert!(status.success(), "{status}");
    agreed(&fleet, &fleet.nodes[0]).await;
    Arc::into_inner(killed).unwrap().kill().unwrap();
    let usage = told(&site);
    assert!(agrees_with_azure(&fleet, &usage), "{usage} of {:?}", fleet.azure.all_totals());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_ledger_is_told_again_and_an_outage_loses_nothing() {
    let mut redis = Redis::start().unwrap();
    let fleet = Fleet::start(2, &redis.url(), "").await;
    fleet.up(true).await;
    calls(&fleet).await;
    agreed(&fleet, &fleet.nodes[0]).await;
    redis.kill();
    fleet.up(false).await;
    let refused = fleet.nodes[0].admin_page("/usage").await.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    let output = fleet.nodes[0].site().run(&["usage"]).unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: store: redis://127.0.0.1:") && said.lines().count() == 1, "{said}");
    // Served from each node's share, and counted.
    calls(&fleet).await;
    redis.restart().unwrap();
    fleet.up(true).await;
    agreed(&fleet, &fleet.nodes[0]).await;
}
