//! Budgets hold: against many callers at once, on every way that a call can end, and whatever a request looks like.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "budgets/uncounted.rs"]
mod uncounted;
#[path = "budgets/upstreams.rs"]
mod upstreams;

use std::time::{Duration, Instant};

use gateway_tests::harness::{DEADLINE, Protocol, Reply, Scene, chat, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault};
use serde_json::{Value, json};
use tokio::time::sleep;

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const RESPONSES: &str = "/openai/v1/responses";
const COMPLETIONS: &str = "/openai/deployments/instruct/completions?api-version=2024-10-21";

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// A call whose answer is read to its end, whatever it is.
async fn call(scene: &Scene, path: &str, body: &Value) -> Reply {
    scene.gateway.call(post(path, &scene.acme.primary, body).unwrap()).await.unwrap()
}

async fn booked(scene: &Scene, name: &str) -> f64 {
    scene.gateway.metric(name, &[("tenant", "acme")]).await.unwrap()
}

#[tokio::test]
async fn fifty_callers_at_once_do_not_get_past_the_minutes_budget() {
    let limit = 6000;
    let scene = Scene::start(&format!("[tiers.default]\ntokens_per_minute = {limit}\n")).await.unwrap();
    let tokens = 120;
    scene.azure.behave(Behaviour {
        tokens,
        chunk_delay: Duration::from_millis(1),
        chunk_tokens: 8,
        ..Behaviour::default()
    });
    let generated = || scene.azure.totals("chat").tokens();
    let began = Instant::now();
    let one_caller = async |number: usize| {
        let mut client = scene.gateway.connect(PROTOCOLS[number % 2]).await.unwrap();
        for turn in 0.. {
            if turn >= 4 && (generated() > limit / 2 || began.elapsed() > DEADLINE) {
                return;
            }
            let mut body = user_says("Tell me a story.");
            match (number + turn) % 4 {
                0 => {}
                1 => body["max_tokens"] = 50.into(),
                2 => body["n"] = 3.into(),
                _ => body["max_completion_tokens"] = 4000.into(),
            }
            let body = if number.is_multiple_of(3) { body } else { streamed(body) };
            let reply = client.send(chat("chat", &scene.acme.primary, &body).unwrap()).await.unwrap();
            let refused = reply.status == 429 && reply.error().unwrap() == "token_budget_exceeded";
            assert!(reply.status == 200 || refused, "{}: {:?}", reply.status, reply.body);
            if refused {
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let mut callers = Vec::new();
    for number in 0..50 {
        callers.push(one_caller(number));
    }
    futures_join(callers).await;
    scene.at_rest().await.unwrap();
    let spent = generated();
    assert!(spent <= limit, "{spent} of {limit}");
    assert!(spent > limit / 2, "honest callers get most of it: {spent} of {limit}");
    let used = scene.status_of("acme").await.unwrap()["tokensPerMinute"]["used"].clone();
    assert_eq!(used, spent, "the books are the truth");
    scene.unharmed().await.unwrap();
}

/// Drives futures of one kind to their end, all at once on this thread.
async fn futures_join<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut pending: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|cx| {
        for slot in &mut pending {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn every_prompt_of_a_completion_is_held_for() {
    let limit = 1000;
    let scene = Scene::start(&format!("[tiers.default]\ntokens_per_minute = {limit}\n")).await.unwrap();
    scene.azure.behave(Behaviour { tokens: 400, ..Behaviour::default() });
    let prompts = vec!["hi"; 40];
    for body in [
        json!({"prompt": prompts, "max_tokens": 100}),
        json!({"prompt": prompts}),
        json!({"prompt": [[1, 2], [3]], "max_tokens": 400, "n": 2}),
        json!({"prompt": ["a", "b"], "best_of": 3, "max_tokens": 400}),
    ] {
        call(&scene, COMPLETIONS, &body).await;
        let spent = scene.azure.totals("instruct").tokens();
        assert!(spent <= limit, "{spent} of {limit} after {body}");
    }
    assert!(scene.azure.totals("instruct").calls > 0, "all of them were refused");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_limit_that_the_api_does_not_know_is_none() {
    let limit = 1000;
    let scene = Scene::start(&format!("[tiers.default]\ntokens_per_minute = {limit}\n")).await.unwrap();
    scene.azure.behave(Behaviour { tokens: 5000, ..Behaviour::default() });
    for (path, deployment, body) in [
        (RESPONSES, "chat", json!({"model": "chat", "input": "hi", "max_tokens": 16})),
        (
            RESPONSES,
            "chat",
            json!({"model": "chat", "input": "hi", "max_completion_tokens": 16, "stream": true}),
        ),
        (COMPLETIONS, "instruct", json!({"prompt": "hi", "max_output_tokens": 16})),
    ] {
        call(&scene, path, &body).await;
        scene.at_rest().await.unwrap();
        let spent = scene.azure.totals(deployment).tokens();
        assert!(spent <= limit, "{spent} of {limit} after {body}");
    }
    assert!(scene.azure.all_totals().calls > 0, "all of them were refused");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn many_answers_at_once_are_let_in_with_a_token_each_at_least() {
    let scene = Scene::start("[tiers.default]\ntokens_per_minute = 1000\n").await.unwrap();
    scene.azure.behave(Behaviour { tokens: 4, ..Behaviour::default() });
    let mut body = user_says("hi");
    body["n"] = 100.into();
    let mut let_in = 0;
    for _ in 0..8 {
        let reply = call(&scene, "/openai/deployments/chat/chat/completions?api-version=1", &body).await;
        assert!([200, 429].contains(&reply.status.as_u16()), "{}: {:?}", reply.status, reply.body);
        let_in += u64::from(reply.status == 200);
    }
    assert!(let_in > 0);
    assert!(scene.azure.totals("chat").tokens() <= 1000);
}

#[tokio::test]
async fn no_way_to_end_leaks_a_hold_or_a_slot() {
    let scene = Scene::start("[tiers.default]\nconcurrent_calls = 2\n").await.unwrap();
    let key = scene.acme.primary.as_str();
    let faults = [
        None,
        Some(Fault::RateLimited { retry_after_ms: 1 }),
        Some(Fault::ContentFilter),
        Some(Fault::ServerError),
        Some(Fault::Reset { after_chunks: 0 }),
        Some(Fault::Reset { after_chunks: 2 }),
        Some(Fault::Truncated { after_chunks: 2 }),
        Some(Fault::StreamError { after_chunks: 2 }),
    ];
    for fault in faults {
        scene.azure.behave(Behaviour { fault, ..Behaviour::default() });
        for protocol in PROTOCOLS {
            for body in [user_says("hi"), streamed(user_says("hi"))] {
                let mut client = scene.gateway.connect(protocol).await.unwrap();
                match client.send(chat("chat", key, &body).unwrap()).await {
                    Ok(reply) => assert_ne!(reply.error().as_deref(), Some("concurrency_limit"), "{fault:?}"),
                    // A stream that broke.
                    Err(_) => assert!(fault.is_some()),
                }
                scene.at_rest().await.unwrap();
            }
        }
    }
    // Callers that leave before the head, and in the middle.
    for (behaviour, head) in [
        (Behaviour { first_byte_delay: Duration::from_hours(1), ..Behaviour::default() }, false),
        (Behaviour { fault: Some(Fault::Stall { after_chunks: 2 }), ..Behaviour::default() }, true),
    ] {
        for protocol in PROTOCOLS {
            scene.azure.behave(behaviour.clone());
            let mut client = scene.gateway.connect(protocol).await.unwrap();
            let calling = client.stream(chat("chat", key, &streamed(user_says("hi"))).unwrap());
            if head {
                calling.await.unwrap().next().await.unwrap();
            } else {
                // Until upstream has it, which is when the call is dropped.
                let open = wait_until("upstream has it", async || scene.azure.totals("chat").open() == 1);
                tokio::select! {
                    answered = calling => assert!(answered.is_err(), "there is no answer"),
                    waited = open => waited.unwrap(),
                }
            }
            drop(client);
            scene.at_rest().await.unwrap();
            wait_until("upstream is cancelled", async || scene.azure.totals("chat").open() == 0)
                .await
                .unwrap();
        }
    }
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
    let reply = scene.gateway.call(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_caller_that_hangs_up_pays_for_what_passed_and_upstream_is_cancelled() {
    // Under a strict ceiling it pays for what upstream can have written since, too.
    let scene = Scene::start("[tiers.default]\nceiling = \"soft\"\n").await.unwrap();
    let key = scene.acme.primary.as_str();
    scene.azure.behave(Behaviour {
        tokens: 100_000,
        chunk_delay: Duration::from_millis(10),
        ..Behaviour::default()
    });
    for protocol in PROTOCOLS {
        let (before, truth) =
            (booked(&scene, "aoai_completion_tokens_total").await, scene.azure.totals("chat"));
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let mut streaming =
            client.stream(chat("chat", key, &streamed(user_says("hi"))).unwrap()).await.unwrap();
        let mut text = String::new();
        while !text.contains("\" five\"") {
            text.push_str(std::str::from_utf8(&streaming.next().await.unwrap().unwrap().bytes).unwrap());
        }
        drop(streaming);
        // On HTTP/2 the connection lives on: it is the stream that was reset.
        if protocol == Protocol::Http1 {
            drop(client);
        } else {
            let models = http::Request::get("/openai/v1/models").header("api-key", key);
            let reply = client.send(models.body(bytes::Bytes::new()).unwrap()).await.unwrap();
            assert_eq!(reply.status, 200);
        }
        scene.at_rest().await.unwrap();
        wait_until("upstream is cancelled", async || scene.azure.totals("chat").open() == 0).await.unwrap();
        let now = scene.azure.totals("chat");
        assert_eq!(now.abandoned, truth.abandoned + 1);
        let paid = booked(&scene, "aoai_completion_tokens_total").await - before;
        let generated = (now.generated_tokens - truth.generated_tokens) as f64;
        assert!((6.0..=generated).contains(&paid), "{paid} of {generated}");
        assert!(generated < 10_000.0, "upstream went on to {generated}");
    }
    let prompts = scene.azure.totals("chat").prompt_tokens as f64;
    assert_eq!(booked(&scene, "aoai_prompt_tokens_total").await, prompts);
    let gone = [("tenant", "acme"), ("reason", "caller_gone")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &gone).await.unwrap(), 2.0);
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_soft_ceiling_is_overshot_once_and_then_refuses() {
    let scene = Scene::start("[tiers.default]\ntokens_per_minute = 200\nceiling = \"soft\"\n").await.unwrap();
    scene.azure.behave(Behaviour { tokens: 500, ..Behaviour::default() });
    let path = "/openai/deployments/chat/chat/completions?api-version=1";
    let reply = call(&scene, path, &user_says("hi")).await;
    assert_eq!(reply.json().unwrap()["usage"]["completion_tokens"], 500);
    let reply = call(&scene, path, &streamed(user_says("hi"))).await;
    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (429, Some("token_budget_exceeded")));
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=61).contains(&wait), "{wait} s until the window has room");
}

#[tokio::test]
async fn quotas_hold_against_many_callers_and_name_their_end() {
    let scene = Scene::start(
        "[tiers.tokens]\ntoken_quota = { tokens = 2000, period = \"monthly\" }\n\
         [tiers.spend]\nspend_quota = { dollars = 0.0005, period = \"daily\" }\n",
    )
    .await
    .unwrap();
    let site = scene.gateway.site();
    let tokens = site.add_tenant("tokens", Some("tokens")).unwrap().primary;
    let spend = site.add_tenant("spend", Some("spend")).unwrap().primary;
    wait_until("the tenants are known", async || scene.status_of("spend").await.is_ok()).await.unwrap();
    scene.azure.behave(Behaviour {
        tokens: 90,
        chunk_delay: Duration::from_millis(1),
        chunk_tokens: 30,
        ..Behaviour::default()
    });
    for (key, tenant, error) in
        [(&tokens, "tokens", "token_quota_exceeded"), (&spend, "spend", "spend_quota_exceeded")]
    {
        let one_caller = async |number: usize| {
            for _ in 0..3 {
                let body = if number.is_multiple_of(2) { user_says("hi") } else { streamed(user_says("hi")) };
                let reply = scene.gateway.call(chat("chat", key, &body).unwrap()).await.unwrap();
                if reply.status != 200 {
                    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (403, Some(error)));
                }
            }
        };
        futures_join((0..20).map(one_caller).collect()).await;
        scene.at_rest().await.unwrap();
        let mut reply = scene.gateway.call(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap();
        while reply.status == 200 {
            reply = scene.gateway.call(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap();
        }
        let body = reply.json().unwrap();
        let ends = body["periodEnds"].as_str().unwrap();
        assert!(ends.ends_with("T00:00:00Z"), "{ends}");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(reply.header("retry-after-ms").unwrap(), (wait * 1000).to_string());
        assert!(wait <= 31 * 86_400, "{wait}");
        let metrics = scene.gateway.metrics().await.unwrap();
        let of = |name| metrics.sum(name, &[("tenant", tenant)]);
        assert!(of("aoai_tokens_consumed_total") > 500.0);
        if tenant == "tokens" {
            assert!(of("aoai_tokens_consumed_total") <= 2000.0);
            assert_eq!(
                metrics.sum("gateway_budget_limit_tokens", &[("tenant", "tokens"), ("window", "monthly")]),
                2000.0
            );
        } else {
            assert!(of("aoai_cost_dollars_total") <= 0.0005 + 1e-12, "{}", of("aoai_cost_dollars_total"));
        }
    }
    let both = scene.gateway.metric("aoai_tokens_consumed_total", &[]).await.unwrap();
    assert_eq!(both, scene.azure.totals("chat").tokens() as f64);
}

#[tokio::test]
async fn a_dearer_service_tier_is_refused_where_money_is_counted() {
    let dear = |tier: &str| {
        let mut body = user_says("Tell me a story.");
        body["service_tier"] = tier.into();
        body
    };
    let money = "[tiers.default]\nspend_quota = { dollars = 5, period = \"daily\" }\n";
    for (tiers, tier, status) in [
        (money, "priority", 400),
        (money, "default", 200),
        ("[tiers.default]\ntokens_per_minute = 9000\n", "priority", 200),
    ] {
        let scene = Scene::start(tiers).await.unwrap();
        let reply =
            scene.gateway.call(chat("chat", &scene.acme.primary, &dear(tier)).unwrap()).await.unwrap();
        assert_eq!(reply.status, status, "{tier}: {:?}", reply.body);
    }
}

#[tokio::test]
async fn of_many_calls_at_once_as_many_are_let_in_as_the_limit_says() {
    let scene = Scene::start("[tiers.default]\ncalls_per_minute = 10\n").await.unwrap();
    let one_call = async |number: usize| {
        let mut client = scene.gateway.connect(PROTOCOLS[number % 2]).await.unwrap();
        let reply = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
        assert!(reply.status == 200 || reply.error().unwrap() == "rate_limit", "{:?}", reply.body);
    };
    futures_join((0..30).map(one_call).collect()).await;
    assert_eq!(scene.azure.totals("chat").calls, 10);
    let throttled = [("tenant", "acme"), ("reason", "rate_limit")];
    assert_eq!(scene.gateway.metric("gateway_throttled_total", &throttled).await.unwrap(), 20.0);
}
