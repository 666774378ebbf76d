//! `aoai-gateway usage adjust`: what was assumed of a brown-out is given back, and that is seen everywhere.

use std::process::Output;

use gateway_tests::harness::{Config, Gateway, Protocol, Site, chat, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault, Simulator};
use http::StatusCode;

use super::{azure, call, ledger, number, started, total};

const QUOTA: u64 = 4_000;
const OUTPUT: u64 = 1_000;

fn site(azure: &Simulator) -> (Site, String) {
    let tier = format!("[tiers.default]\ntoken_quota = {{ tokens = {QUOTA}, period = \"yearly\" }}\n");
    let config = Config::for_simulator(azure).unwrap().without(&["tiers", "default", "tokens_per_minute"]);
    let site = Site::new(azure, &config.with(&tier).unwrap()).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    (site, key)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tokens of the year, as the quota sees them.
async fn of_the_year(gateway: &Gateway) -> u64 {
    let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
    status["tenants"][0]["quotas"][0]["tokens"].as_u64().unwrap()
}

/// A gateway that was killed while Azure hung, so that all that its calls held counts as used.
async fn after_a_brown_out(azure: &Simulator) -> (Gateway, String) {
    azure.behave(Behaviour { fault: Some(Fault::Stall { after_chunks: 0 }), ..Behaviour::default() });
    let (site, key) = site(azure);
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    let mut body = user_says("What will be left of this?");
    body["max_tokens"] = OUTPUT.into();
    let request = chat("chat", &key, &body).unwrap();
    let hanging = tokio::spawn(async move { client.send(request).await });
    wait_until("the hold is with the store", async || {
        let metrics = gateway.metrics().await.unwrap();
        let open = ledger(&gateway, "/usage").await;
        open["rows"].as_array().is_some() && metrics.sum("gateway_inflight", &[("tenant", "acme")]) > 0.5
    })
    .await
    .unwrap();
    // The answer of /usage came after a checkpoint that has the open call.
    ledger(&gateway, "/usage").await;
    let site = gateway.kill().unwrap();
    drop(hanging.await);
    azure.behave(Behaviour { tokens: 10, ..Behaviour::default() });
    (started(site).await, key)
}

#[tokio::test]
async fn what_was_assumed_is_given_back_once_and_more_only_by_force() {
    let azure = azure();
    let (gateway, key) = after_a_brown_out(&azure).await;
    let books = total(&gateway).await;
    let (assumed, cost) = (number(&books, "assumed_tokens"), number(&books, "assumed_nano_dollars"));
    assert!(assumed > OUTPUT && cost > 0, "{books}");
    assert_eq!((number(&books, "tokens"), of_the_year(&gateway).await), (assumed, assumed));

    let adjust = |tokens: i64, note: &str, more: &[&str]| {
        let tokens = tokens.to_string();
        let arguments = [&["usage", "adjust", "acme", "--tokens", &tokens, "--note", note], more].concat();
        gateway.site().run(&arguments).unwrap()
    };
    let whole = i64::try_from(assumed).unwrap();
    let refused = adjust(-whole - 1, "too much", &[]);
    assert!(!refused.status.success() && said(&refused).contains("only with --force"), "{refused:?}");
    assert_eq!(of_the_year(&gateway).await, assumed, "nothing was changed");

    let dollars = format!("-0.{cost:09}");
    let given = adjust(-whole, "brown-out of May 3rd", &["--dollars", &dollars]);
    assert!(given.status.success(), "{}", said(&given));
    let printed = String::from_utf8(given.stdout).unwrap();
    assert!(printed.starts_with(&format!("acme: adjusted by -{assumed} tokens and -0.")), "{printed}");
    assert_eq!(of_the_year(&gateway).await, 0);
    let event = gateway.log().wait_for("usage adjusted").unwrap();
    assert_eq!((&event["tenant"], &event["note"]), (&"acme".into(), &"brown-out of May 3rd".into()));
    assert_eq!(event["given_back_tokens"], assumed);

    let again = adjust(-1, "once more", &[]);
    assert!(!again.status.success() && said(&again).contains("0 tokens"), "{again:?}");
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut client, &key, 10, false).await.unwrap().status, StatusCode::OK);
    let used = of_the_year(&gateway).await;
    assert!(used > 0);
    let forced = adjust(-1_000, "a present", &["--force"]);
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(of_the_year(&gateway).await, 0, "never below zero");
    let charged = adjust(700, "a call that another gateway made", &[]);
    assert!(charged.status.success(), "{}", said(&charged));
    assert_eq!(of_the_year(&gateway).await, 700);

    let metrics = gateway.metrics().await.unwrap();
    for (direction, tokens) in [("given_back", assumed + 1_000), ("charged", 700)] {
        let labels = [("tenant", "acme"), ("direction", direction)];
        let counted = metrics.sum("gateway_adjusted_tokens_total", &labels);
        assert!((counted - f64::from(u32::try_from(tokens).unwrap())).abs() < 0.1, "{direction}: {counted}");
    }
    let after = ledger(&gateway, "/usage?by=kind&since=1d").await;
    assert_eq!(number(&after["total"], "given_back_tokens"), assumed + 1_000);
    assert_eq!(number(&after["total"], "charged_tokens"), 700);
    let notes: Vec<_> = after["adjustments"].as_array().unwrap().iter().map(|row| &row["note"]).collect();
    assert_eq!(notes, ["brown-out of May 3rd", "a present", "a call that another gateway made"]);
    drop(client);

    // It outlives a kill, with its trace.
    let site = gateway.kill().unwrap();
    let table = String::from_utf8(site.run(&["usage", "--by", "kind"]).unwrap().stdout).unwrap();
    assert!(table.contains("ADJUSTED AT") && table.contains("  brown-out of May 3rd"), "{table}");
    let gateway = started(site).await;
    assert_eq!(of_the_year(&gateway).await, 700);
    assert_eq!(ledger(&gateway, "/usage?by=kind&since=1d").await["adjustments"], after["adjustments"]);
}

#[tokio::test]
async fn what_cannot_be_adjusted_is_refused_with_the_reason() {
    let azure = azure();
    let (site, _) = site(&azure);
    let arguments =
        |tenant: &'static str| ["usage", "adjust", tenant, "--tokens", "-5", "--note", "why", "--force"];
    let nobody = site.run(&arguments("acme")).unwrap();
    assert!(said(&nobody).contains("is it running?"), "{nobody:?}");
    let gateway = started(site).await;
    let unknown = gateway.site().run(&arguments("nobody")).unwrap();
    assert!(said(&unknown).contains("404 Not Found: there is no tenant `nobody`"), "{unknown:?}");
    for (wrong, why) in [
        (&["usage", "adjust", "acme", "--note", "why"][..], "--tokens"),
        (&["usage", "adjust", "acme", "--tokens", "-5"], "--note"),
        (&["usage", "adjust", "acme", "--dollars", "1e3", "--note", "why"], "decimal number"),
        (&["usage", "adjust", "acme", "--tokens", "-5", "--note", " "], "the note is empty"),
        (&["usage", "adjust", "acme", "--tokens", "0", "--note", "why"], "nothing is adjusted"),
    ] {
        let output = gateway.site().run(wrong).unwrap();
        assert!(!output.status.success() && said(&output).contains(why), "{wrong:?}: {output:?}");
    }
    let page = gateway.admin_page("/usage/adjust").await.unwrap();
    assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED);
}
