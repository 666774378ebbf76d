//! What Prometheus reads, as its own tool sees it.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use bytes::Bytes;
use gateway_tests::harness::{Client, Config, Gateway, Protocol, Reply, Site, chat, user_says};
use gateway_tests::simulator::{Options, Simulator};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};

/// A gateway that has served a call, refused one, and been given a quota in dollars.
async fn busy() -> (Simulator, Gateway) {
    let azure = Simulator::start(Options { recorded: 0, ..Options::default() }).unwrap();
    let tier = "[tiers.default]\nspend_quota = { dollars = 2.5, period = \"daily\" }\n";
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap().with(tier).unwrap()).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    let gateway = site.start().unwrap();
    gateway.ready().await.unwrap();
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    for (key, stream, status) in [(&*key, false, 200), (&*key, true, 200), ("wrong", false, 401)] {
        let mut body = user_says("What is there to see?");
        (body["max_tokens"], body["stream"]) = (20.into(), stream.into());
        let reply = client.send(chat("chat", key, &body).unwrap()).await.unwrap();
        assert_eq!(reply.status, status, "{reply:?}");
    }
    (azure, gateway)
}

async fn scrape(gateway: &Gateway, accept: Option<&str>) -> Reply {
    let mut request = Request::get("/metrics");
    if let Some(accept) = accept {
        request = request.header(ACCEPT, accept);
    }
    let mut client = Box::pin(Client::plain(gateway.admin())).await.unwrap();
    let reply = client.send(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    reply
}

#[tokio::test]
async fn the_format_is_the_one_that_is_asked_for() {
    let (_azure, gateway) = busy().await;
    for (accept, content_type, ends) in [
        (None, "text/plain; version=0.0.4; charset=utf-8", false),
        (Some("text/plain;version=0.0.4"), "text/plain; version=0.0.4; charset=utf-8", false),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let reply = scrape(&gateway, accept).await;
        assert_eq!(reply.headers[CONTENT_TYPE], content_type, "{accept:?}");
        assert_eq!(reply.text().unwrap().ends_with("# EOF\n"), ends, "{accept:?}");
    }
}

#[tokio::test]
async fn the_process_its_build_and_budgets_in_dollars_are_there() {
    let (_azure, gateway) = busy().await;
    let metrics = gateway.metrics().await.unwrap();
    assert_eq!(metrics.series("gateway_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(metrics.series(name, &[]) == 1 && metrics.sum(name, &[]) > 0.0, "{name}");
    }
    let daily = [("tenant", "acme"), ("window", "daily")];
    assert!((metrics.sum("gateway_budget_limit_dollars", &daily) - 2.5).abs() < 1e-9);
    let used = metrics.sum("gateway_budget_used_dollars", &daily);
    assert!((used - metrics.sum("aoai_cost_dollars_total", &[])).abs() < 1e-9 && used > 0.0, "{used}");
}

#[tokio::test]
#[ignore = "needs promtool in PROMTOOL: `cargo xtask test --only rules` gives it"]
async fn promtool_finds_nothing_to_say() {
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| panic!("PROMTOOL names no promtool"));
    let (_azure, gateway) = busy().await;
    let reply = scrape(&gateway, None).await;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(reply.text().unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
