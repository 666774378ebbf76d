//! A restart gives nobody a fresh budget, and loses nothing where it was in order.

use std::time::Duration;

use gateway_tests::harness::{Config, Gateway, Protocol, Reply, Site, wait_until};
use gateway_tests::runaway::most_within;
use gateway_tests::simulator::{Behaviour, Options, Simulator};
use http::StatusCode;

use super::{SLOW, azure, call, ledger, number, started, total};

const OUTPUT: u64 = 25;

fn site(azure: &Simulator, tier: &str) -> (Site, String) {
    azure.behave(Behaviour { tokens: OUTPUT, ..Behaviour::default() });
    let config = Config::for_simulator(azure).unwrap().without(&["tiers", "default", "tokens_per_minute"]);
    let site = Site::new(azure, &config.with(&format!("[tiers.default]\n{tier}")).unwrap()).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    (site, key)
}

/// Calls until a call is refused.
async fn until_refused(gateway: &Gateway, key: &str) -> Reply {
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    for number in 0..1000 {
        let reply = call(&mut client, key, OUTPUT, number % 2 == 0).await.unwrap();
        if reply.status != StatusCode::OK {
            return reply;
        }
    }
    panic!("a thousand calls were let in");
}

/// What was refused stays refused when the gateway is killed the moment that the refusal has come, which `holds` tells.
async fn a_kill_changes_nothing(tier: &str, error: &str, mut holds: impl FnMut(&Simulator) -> bool) {
    let azure = Simulator::start(Options { recorded: 0, timed: true, ..Options::default() }).unwrap();
    let (site, key) = site(&azure, tier);
    let mut gateway = started(site).await;
    for kill in 0..5 {
        let refused = until_refused(&gateway, &key).await;
        assert_eq!(refused.error().as_deref(), Some(error), "{refused:?}");
        assert!(holds(&azure), "{kill} kills let calls in: {:?}", azure.all_totals());
        gateway = started(gateway.kill().unwrap()).await;
    }
}

/// The tokens of the worst minute: however long the restarts take, none may have more than the limit.
fn worst_minute(azure: &Simulator) -> u64 {
    most_within(&azure.timeline("chat"), Duration::from_mins(1))
}

/// Whether no call was let in since this was asked first.
fn no_more_calls() -> impl FnMut(&Simulator) -> bool {
    let mut first = None;
    move |azure| {
        let calls = azure.all_totals().calls;
        *first.get_or_insert(calls) == calls
    }
}

#[tokio::test]
async fn a_minute_used_up_stays_used_up() {
    let holds = |azure: &Simulator| azure.all_totals().tokens() > 0 && worst_minute(azure) <= 2000;
    a_kill_changes_nothing("tokens_per_minute = 2000", "token_budget_exceeded", holds).await;
}

#[tokio::test]
async fn the_calls_of_a_minute_used_up_stay_used_up() {
    let holds = |azure: &Simulator| {
        let totals = azure.all_totals();
        // All calls are of one size.
        totals.calls >= 7 && worst_minute(azure) <= 7 * (totals.tokens() / totals.calls)
    };
    a_kill_changes_nothing("calls_per_minute = 7", "rate_limit", holds).await;
}

#[tokio::test]
async fn a_token_quota_used_up_stays_used_up() {
    let mut no_more_calls = no_more_calls();
    let holds = |azure: &Simulator| azure.all_totals().tokens() <= 1500 && no_more_calls(azure);
    let tier =
        "token_quota = [{ tokens = 1500, period = \"yearly\" }, { tokens = 9000, period = \"hourly\" }]";
    a_kill_changes_nothing(tier, "token_quota_exceeded", holds).await;
}

#[tokio::test]
async fn a_spend_quota_used_up_stays_used_up() {
    let mut no_more_calls = no_more_calls();
    // In billionths of a dollar, of which a prompt token costs 150 and an answer's 600.
    let holds = |azure: &Simulator| {
        let totals = azure.all_totals();
        totals.prompt_tokens * 150 + totals.generated_tokens * 600 <= 600_000 && no_more_calls(azure)
    };
    let tier = "spend_quota = { dollars = 0.0006, period = \"monthly\" }";
    a_kill_changes_nothing(tier, "spend_quota_exceeded", holds).await;
}

#[tokio::test]
async fn a_slow_disk_makes_nothing_forgotten_that_was_refused() {
    let azure = azure();
    let (site, key) = site(&azure, "token_quota = { tokens = 500, period = \"yearly\" }");
    let gateway = site.start_on_slow_disk(SLOW).unwrap();
    gateway.ready().await.unwrap();
    let refused = until_refused(&gateway, &key).await;
    assert_eq!(refused.error().as_deref(), Some("token_quota_exceeded"), "{refused:?}");
    let calls = azure.all_totals().calls;
    let gateway = started(gateway.kill().unwrap()).await;
    until_refused(&gateway, &key).await;
    assert_eq!(azure.all_totals().calls, calls, "a restart let calls in");
}

#[tokio::test]
async fn a_stop_in_order_loses_nothing() {
    let azure = azure();
    let (site, key) = site(&azure, "token_quota = { tokens = 1000000, period = \"yearly\" }");
    let mut gateway = started(site).await;
    for _stop in 0..3 {
        let mut client = gateway.connect(Protocol::Http1).await.unwrap();
        for number in 0..5 {
            assert_eq!(
                call(&mut client, &key, OUTPUT, number % 2 == 0).await.unwrap().status,
                StatusCode::OK
            );
        }
        drop(client);
        let (site, status) = gateway.terminate().unwrap();
        assert!(status.success(), "{status}");
        gateway = started(site).await;
        let (ledger, totals) = (total(&gateway).await, azure.all_totals());
        assert_eq!(number(&ledger, "calls"), totals.calls);
        assert_eq!(number(&ledger, "prompt_tokens"), totals.prompt_tokens);
        assert_eq!(number(&ledger, "completion_tokens"), totals.generated_tokens);
        let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
        assert_eq!(status["tenants"][0]["quotas"][0]["tokens"], totals.tokens());
    }
}

#[tokio::test]
async fn a_call_that_was_open_at_a_kill_counts_as_all_that_it_held() {
    let azure = azure();
    let (site, key) = site(&azure, "tokens_per_minute = 100000");
    azure.behave(Behaviour { tokens: 1000, chunk_delay: Duration::from_millis(50), ..Behaviour::default() });
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    let calling = tokio::spawn(async move { call(&mut client, &key, 777, true).await });
    wait_until("tokens have passed", async || {
        assert!(!calling.is_finished(), "the call was not answered with a long stream");
        azure.all_totals().generated_tokens > 3
    })
    .await
    .unwrap();
    // An answer from the ledger waits for a checkpoint, which has the open call then.
    assert_eq!(number(&total(&gateway).await, "calls"), 0);
    let gateway = started(gateway.kill().unwrap()).await;
    calling.await.unwrap().unwrap_err();
    let reply = ledger(&gateway, "/usage?by=tenant,deployment,kind").await;
    let row = &reply["rows"][0];
    assert_eq!((&row["tenant"], &row["kind"]), (&"acme".into(), &"recovered".into()), "{reply}");
    assert_eq!((number(row, "calls"), number(row, "completion_tokens")), (1, 777), "{reply}");
    assert!(row["deployment"].is_null(), "{reply}");
    assert_eq!(number(&total(&gateway).await, "tokens"), number(row, "tokens"));
}
