//! What a call pays whose usage never comes: failed streams, callers that hang up, upstreams that break off, unread text.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

use std::io::Write as _;
use std::time::Duration;

use gateway_tests::harness::{
    Protocol, Reply, Scene, ScriptedUpstream, Streaming, chat, post, user_says, wait_until,
};
use gateway_tests::simulator::{Behaviour, Fault, UsageReport};
use rustix::process::Signal;
use serde_json::{Value, json};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const RESPONSES: &str = "/openai/v1/responses";

fn body(path: &str) -> Value {
    match path {
        CHAT => json!({"messages": [{"role": "user", "content": "hi"}], "stream": true}),
        _ => json!({"model": "chat", "input": "hi", "stream": true}),
    }
}

async fn call(scene: &Scene, path: &str) -> Reply {
    let reply = scene.gateway.call(post(path, &scene.acme.primary, &body(path)).unwrap()).await.unwrap();
    scene.at_rest().await.unwrap();
    reply
}

async fn open(scene: &Scene, protocol: Protocol) -> Streaming {
    let mut client = scene.gateway.connect(protocol).await.unwrap();
    let streaming = client.stream(chat("chat", &scene.acme.primary, &body(CHAT)).unwrap()).await.unwrap();
    assert_eq!(streaming.status, 200);
    streaming
}

async fn metric(scene: &Scene, name: &str) -> f64 {
    scene.gateway.metric(name, &[("tenant", "acme")]).await.unwrap()
}

async fn output(scene: &Scene) -> f64 {
    metric(scene, "aoai_completion_tokens_total").await
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_word_is_free() {
    for (path, fault) in [
        (CHAT, Fault::StreamError { after_chunks: 0 }),
        (RESPONSES, Fault::StreamError { after_chunks: 0 }),
        (RESPONSES, Fault::ResponseFailed { after_chunks: 0 }),
    ] {
        let scene = Scene::start("[tiers.default]\ntokens_per_minute = 400000\n").await.unwrap();
        scene.azure.behave(Behaviour { fault: Some(fault), ..Behaviour::default() });
        let reply = call(&scene, path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            metric(&scene, "aoai_tokens_consumed_total").await,
            0.0,
            "{path} {fault:?}: {:?}",
            reply.body
        );
        scene.azure.behave(Behaviour::default());
        scene.unharmed().await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_fails_later_pays_what_it_wrote_and_can_have_written() {
    for (path, fault) in [
        (CHAT, Fault::StreamError { after_chunks: 20 }),
        (RESPONSES, Fault::ResponseFailed { after_chunks: 20 }),
    ] {
        let scene = Scene::start("[deployments.chat]\nmax_tokens_per_second = 400\n").await.unwrap();
        scene.azure.behave(Behaviour {
            tokens: 1000,
            chunk_delay: Duration::from_millis(5),
            fault: Some(fault),
            ..Behaviour::default()
        });
        call(&scene, path).await;
        let wrote = scene.azure.totals("chat").generated_tokens;
        let paid = output(&scene).await;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let least = wrote as f64;
        assert!(paid >= least, "{path}: {paid} of {wrote}");
        assert!(paid < 16_384.0, "{path}: not all that was held: {paid}");
        assert_eq!(metric(&scene, "gateway_assumed_tokens_total").await, paid - 20.0, "{path}");
    }
}

#[tokio::test]
async fn output_that_upstream_had_not_sent_yet_is_paid_under_a_strict_ceiling() {
    for protocol in PROTOCOLS {
        // Eight times as fast as the simulator writes, which a busy machine only slows.
        let scene = Scene::start("[deployments.chat]\nmax_tokens_per_second = 1600\n").await.unwrap();
        scene.azure.behave(Behaviour {
            tokens: 10_000,
            chunk_delay: Duration::from_millis(5),
            flush_tokens: Some(60),
            ..Behaviour::default()
        });
        let mut streaming = open(&scene, protocol).await;
        streaming.next().await.unwrap().unwrap();
        let flushed = scene.azure.totals("chat").generated_tokens;
        wait_until("more was written that is held back", async || {
            scene.azure.totals("chat").generated_tokens >= flushed + 20
        })
        .await
        .unwrap();
        drop(streaming);
        scene.at_rest().await.unwrap();
        wait_until("upstream is cancelled", async || scene.azure.totals("chat").open() == 0).await.unwrap();
        let paid = output(&scene).await;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let wrote = scene.azure.totals("chat").generated_tokens as f64;
        assert!(paid >= wrote, "{paid} of {wrote}");
        assert!(metric(&scene, "gateway_assumed_tokens_total").await > 0.0);
        assert!(metric(&scene, "gateway_assumed_cost_dollars_total").await > 0.0);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_pays_what_can_have_been_written() {
    for half in ["", "HTTP/1.1 200 OK\r\ncontent-ty"] {
        let upstream = ScriptedUpstream::start(move |stream| {
            stream.write_all(half.as_bytes())?;
            Err(std::io::Error::other("the connection closes here"))
        })
        .unwrap();
        let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
        let mut body = user_says("hi");
        body["max_tokens"] = 300.into();
        let reply = scene.gateway.call(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
        assert_eq!(reply.status, 502);
        scene.at_rest().await.unwrap();
        // A million tokens a second: all that was held can be there after a millisecond.
        assert_eq!(output(&scene).await, 300.0, "{half:?}");
        let all = metric(&scene, "aoai_tokens_consumed_total").await;
        assert_eq!(metric(&scene, "gateway_assumed_tokens_total").await, all, "nobody saw any of it");
    }
}

#[tokio::test]
async fn a_stream_is_one_whatever_its_content_type_and_its_end_is_found() {
    for content_type in [None, Some(""), Some("text/plain"), Some("application/octet-stream")] {
        for done_blank in [false, true] {
            let scene = Scene::start("").await.unwrap();
            scene.azure.behave(Behaviour {
                tokens: 3,
                content_type: content_type.map(str::to_owned),
                done_blank,
                ..Behaviour::default()
            });
            // Without usage, the end has to be found for what passed to be all that was written.
            let path = CHAT.replace("2024-10-21", "2024-06-01");
            let reply =
                scene.gateway.call(post(&path, &scene.acme.primary, &body(CHAT)).unwrap()).await.unwrap();
            assert_eq!(reply.status, 200);
            scene.at_rest().await.unwrap();
            assert_eq!(output(&scene).await, 3.0, "{content_type:?} {done_blank}");
            assert_eq!(metric(&scene, "gateway_assumed_tokens_total").await, 0.0);
        }
    }
}

#[tokio::test]
async fn a_stream_without_a_content_type_is_not_held_back() {
    let scene = Scene::start("").await.unwrap();
    scene.azure.behave(Behaviour {
        tokens: 1_000_000,
        chunk_delay: Duration::from_millis(5),
        content_type: Some(String::new()),
        ..Behaviour::default()
    });
    let mut streaming = open(&scene, Protocol::Http1).await;
    streaming.next().await.unwrap().unwrap();
    assert_eq!(scene.azure.totals("chat").open(), 1, "it goes on");
}

#[tokio::test]
async fn compressed_answers_pass_as_they_came_and_are_counted() {
    for stream in [false, true] {
        let scene = Scene::start("").await.unwrap();
        scene.azure.behave(Behaviour { tokens: 50, gzip: true, ..Behaviour::default() });
        let mut body = body(CHAT);
        body["stream"] = stream.into();
        let reply = scene.gateway.call(post(CHAT, &scene.acme.primary, &body).unwrap()).await.unwrap();
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        assert!(reply.body.starts_with(&[0x1f, 0x8b]), "the bytes are gzip's");
        scene.at_rest().await.unwrap();
        assert_eq!(output(&scene).await, 50.0, "stream: {stream}");
        assert_eq!(metric(&scene, "gateway_assumed_tokens_total").await, 0.0);
        assert_eq!(scene.gateway.metric("gateway_unreadable_usage_total", &[]).await.unwrap(), 0.0);
    }
}

#[tokio::test]
async fn text_in_a_field_that_nobody_documents_is_counted() {
    for path in [CHAT, RESPONSES] {
        let scene = Scene::start("").await.unwrap();
        scene.azure.behave(Behaviour {
            tokens: 100_000,
            chunk_delay: Duration::from_millis(1),
            unknown_delta: Some("thinking".to_owned()),
            ..Behaviour::default()
        });
        let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
        let request = post(path, &scene.acme.primary, &body(path)).unwrap();
        let mut streaming = client.stream(request).await.unwrap();
        for _ in 0..100 {
            streaming.next().await.unwrap().unwrap();
        }
        drop((streaming, client));
        scene.at_rest().await.unwrap();
        let assumed = metric(&scene, "gateway_assumed_tokens_total").await;
        assert!(output(&scene).await - assumed >= 90.0, "{path}: what passed is counted");
    }
}

#[tokio::test]
async fn a_cut_stream_says_why_in_the_words_of_the_same_refusal() {
    for protocol in PROTOCOLS {
        let scene = Scene::start("").await.unwrap();
        scene.azure.behave(Behaviour {
            tokens: 1_000_000,
            chunk_delay: Duration::from_millis(5),
            ..Behaviour::default()
        });
        let mut revoked = open(&scene, protocol).await;
        revoked.next().await.unwrap().unwrap();
        scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
        let text = revoked.rest_text().await.unwrap();
        assert!(text.contains("\"code\":\"invalid_subscription_key\""), "{text}");
        assert!(text.contains("\"type\":\"authentication_error\""), "{text}");
        assert!(!text.contains("\"length\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test]
async fn a_drain_timeout_ends_streams_well_formed() {
    for protocol in PROTOCOLS {
        let scene = Scene::start("[listen]\ndrain_timeout = \"100ms\"\n").await.unwrap();
        scene.azure.behave(Behaviour {
            tokens: 1_000_000,
            chunk_delay: Duration::from_millis(5),
            ..Behaviour::default()
        });
        let mut streaming = open(&scene, protocol).await;
        streaming.next().await.unwrap().unwrap();
        scene.gateway.signal(Signal::TERM).unwrap();
        let text = streaming.rest_text().await.unwrap();
        assert!(text.contains("\"code\":\"shutting_down\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("\"length\""), "{text}");
        let line = scene.gateway.log().wait_for("call").unwrap();
        assert_eq!(line["reason"], "shutting_down", "{line}");
    }
}

#[tokio::test]
async fn a_count_of_upstreams_is_believed_within_bounds() {
    for (reported, least, most) in [
        // Nothing, beside two thousand words that passed.
        (UsageReport::Wrong { input: 5, output: 0 }, 1900.0, 2100.0),
        // More than the model writes: gpt-4o-mini, 16,384.
        (UsageReport::Wrong { input: 5, output: 4_294_967_295 }, 16_384.0, 16_384.0),
        (UsageReport::Wrong { input: 5, output: 1995 }, 1995.0, 1995.0),
    ] {
        for (path, streams) in [(CHAT, true), (RESPONSES, true), (CHAT, false), (RESPONSES, false)] {
            let scene = Scene::start("").await.unwrap();
            scene.azure.behave(Behaviour { tokens: 2000, usage: reported, ..Behaviour::default() });
            let mut body = body(path);
            body["stream"] = streams.into();
            let request = post(path, &scene.acme.primary, &body).unwrap();
            assert_eq!(scene.gateway.call(request).await.unwrap().status, 200);
            scene.at_rest().await.unwrap();
            let (paid, what) = (output(&scene).await, format!("{reported:?}, {path}, stream: {streams}"));
            assert!((least..=most).contains(&paid), "{what}: {paid}");
            let corrected = scene.gateway.metric("gateway_usage_out_of_bounds_total", &[]).await.unwrap();
            assert_eq!(corrected, if least == most && least < 2000.0 { 0.0 } else { 1.0 }, "{what}");
        }
    }
}
