//! `aoai-gateway usage`, of a running gateway and of a stopped one.

use std::process::Output;

use gateway_tests::harness::{Config, Protocol, Site, post, user_says, wait_until};
use gateway_tests::simulator::Behaviour;
use http::StatusCode;
use serde_json::Value;

use super::{azure, call, started};

/// The columns of figures, and where Prometheus has the same.
const FIGURES: [(&str, &str); 5] = [
    ("prompt_tokens", "aoai_prompt_tokens_total"),
    ("cached_prompt_tokens", "aoai_cached_prompt_tokens_total"),
    ("completion_tokens", "aoai_completion_tokens_total"),
    ("reasoning_tokens", "aoai_reasoning_tokens_total"),
    ("tokens", "aoai_tokens_consumed_total"),
];

fn printed(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A running gateway refuses where a commit takes too long.
async fn json(site: &Site, by: &str) -> Value {
    let mut output = None;
    wait_until("the ledger is told", async || {
        let told = site.run(&["usage", "--since", "1d", "--by", by, "--format", "json"]).unwrap();
        let refused = String::from_utf8_lossy(&told.stderr).contains("503");
        output = Some(told);
        !refused
    })
    .await
    .unwrap();
    serde_json::from_str(&printed(output.unwrap())).unwrap()
}

#[tokio::test]
async fn the_ledger_agrees_with_prometheus_and_with_azure_in_every_format() {
    let azure = azure();
    azure.behave(Behaviour { tokens: 9, cached_tokens: 4, reasoning_tokens: 0, ..Behaviour::default() });
    let reasoner =
        "[deployments.reasoner]\nmodel = \"o4-mini\"\n[prices.\"o4-mini\"]\ninput = 1.1\noutput = 4.4\n";
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap().with(reasoner).unwrap()).unwrap();
    let acme = site.add_tenant("acme", None).unwrap().primary;
    let widgets = site.add_tenant("widgets", None).unwrap().primary;
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    for (key, stream) in [(&acme, false), (&acme, true), (&widgets, true), (&widgets, false), (&acme, true)] {
        assert_eq!(call(&mut client, key, 50, stream).await.unwrap().status, StatusCode::OK);
    }
    azure.behave(Behaviour { tokens: 5, reasoning_tokens: 33, ..Behaviour::default() });
    let mut body = user_says("Think.");
    for stream in [false, true] {
        body["model"] = "reasoner".into();
        body["stream"] = stream.into();
        let reply = client.send(post("/openai/v1/chat/completions", &widgets, &body).unwrap()).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    }
    let embed = serde_json::json!({"model": "embed", "input": "How far is it?"});
    let reply = client.send(post("/openai/v1/embeddings", &acme, &embed).unwrap()).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    drop(client);

    let metrics = gateway.metrics().await.unwrap();
    for age in ["gateway_store_age_seconds", "gateway_store_on_disk_age_seconds"] {
        assert_eq!(metrics.series(age, &[]), 1);
    }
    let running = json(gateway.site(), "tenant,deployment,model,kind").await;
    let rows = running["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7, "{running}");
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap();
        let labels: Vec<_> = ["tenant", "deployment", "model", "kind"].map(|key| (key, text(key))).to_vec();
        for (figure, metric) in FIGURES {
            let exact = u32::try_from(row[figure].as_u64().unwrap()).unwrap();
            assert!((metrics.sum(metric, &labels) - f64::from(exact)).abs() < 0.1, "{figure} of {row}");
        }
        let dollars: f64 = text("dollars").parse().unwrap();
        assert!((metrics.sum("aoai_cost_dollars_total", &labels) - dollars).abs() < 1e-9, "{row}");
    }
    let (total, truth) = (&running["total"], azure.all_totals());
    assert_eq!(total["calls"], truth.calls);
    assert_eq!(total["prompt_tokens"], truth.prompt_tokens);
    assert_eq!(total["completion_tokens"], truth.generated_tokens);
    assert_eq!(total["reasoning_tokens"], 66);
    assert_eq!(total["cached_prompt_tokens"], 20);

    let checkpoints = gateway.metric("gateway_store_checkpoint_seconds_count", &[]).await.unwrap();
    assert!(checkpoints > 0.5, "the report has waited for one");

    // The same from the file, once nobody uses it, and in the other formats.
    let (site, _) = gateway.terminate().unwrap();
    let stopped = json(&site, "tenant,deployment,model,kind").await;
    // Not since when it counts: that is another hour after a full one.
    assert_eq!((&stopped["rows"], &stopped["total"]), (&running["rows"], &running["total"]));
    let csv = printed(site.run(&["usage", "--format", "csv"]).unwrap());
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some(
            "tenant,deployment,model,calls,prompt_tokens,cached_prompt_tokens,completion_tokens,reasoning_tokens,\
             tokens,dollars,assumed_tokens,assumed_dollars,adjusted_tokens,adjusted_dollars"
        )
    );
    let sum: u64 = lines.map(|line| line.split(',').nth(8).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, truth.tokens());
    let table = printed(site.run(&["usage", "--by", "day,tenant", "--tenant", "acme"]).unwrap());
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("DAY         TENANT  CALLS"), "{table}");
    assert!(lines.last().unwrap().starts_with("total"), "{table}");
    assert!(!table.contains("widgets") && table.contains("acme"), "{table}");
}

#[tokio::test]
async fn what_cannot_be_told_is_said() {
    let azure = azure();
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
    let said = |site: &Site, arguments: &[&str]| {
        let output = site.run(arguments).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let nothing = said(&site, &["usage"]);
    assert!(nothing.starts_with("error: store: there is no ") && nothing.lines().count() == 1, "{nothing}");
    assert!(said(&site, &["usage", "--by", "tenat"]).contains("did you mean `tenant`?"));
    assert!(said(&site, &["usage", "--since", "yesterday"]).contains("write 12h, 7d, 4w"));

    site.add_tenant("acme", None).unwrap();
    let gateway = started(site).await;
    let reply = gateway.admin_page("/usage?by=tenat").await.unwrap();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let empty = json(gateway.site(), "tenant").await;
    assert_eq!((&empty["rows"], &empty["total"]["dollars"]), (&serde_json::json!([]), &"0.000000000".into()));
}
