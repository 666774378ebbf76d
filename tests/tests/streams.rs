//! Streams: nothing is held back, nothing is changed, and what they used is booked to the token.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "simulator/sse.rs"]
mod sse;

use gateway_tests::harness::{Client, Gateway, Protocol, Scene, Streaming, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault, Framing, Simulator, UsageReport};
use http::Request;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use sse::{events, said};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const COMPLETIONS: &str = "/openai/deployments/instruct/completions?api-version=2024-10-21";
const RESPONSES: &str = "/openai/v1/responses";

/// A body for each API that streams; chat and completions ask for their usage where `usage` says so.
fn streamed(path: &str, usage: bool) -> Value {
    let mut body = match path {
        CHAT => user_says("Tell me."),
        COMPLETIONS => json!({"prompt": "Tell me.", "max_tokens": 500}),
        _ => json!({"input": "Tell me.", "model": "chat"}),
    };
    body["stream"] = true.into();
    if usage && path != RESPONSES {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

async fn open(gateway: &Gateway, protocol: Protocol, key: &str, path: &str, body: &Value) -> Streaming {
    let streaming =
        gateway.connect(protocol).await.unwrap().stream(post(path, key, body).unwrap()).await.unwrap();
    assert_eq!(streaming.status, 200);
    assert_eq!(streaming.headers["content-type"], "text/event-stream; charset=utf-8");
    streaming
}

/// The same request as the gateway sent it, made to the simulator without a gateway.
async fn direct(azure: &Simulator) -> String {
    let sent = azure.requests().pop().unwrap();
    let mut request = Request::new(sent.body.clone());
    *request.method_mut() = sent.method.clone();
    *request.uri_mut() = sent.target.parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, sent.headers[AUTHORIZATION].clone());
    let mut client = Client::plain(azure.address()).await.unwrap();
    client.stream(request).await.unwrap().rest_text().await.unwrap()
}

/// A stream with what differs from answer to answer made the same.
fn anonymous(stream: &str) -> String {
    let hex = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
    let mut out = String::new();
    let mut rest = stream;
    // Ids are 32 hexadecimal digits, times follow `created`.
    while let Some(c) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(hex).len();
        let stamped = out.ends_with("created\":") || out.ends_with("created_at\":");
        if run >= 32 || (stamped && run > 0) {
            out.push_str("<>");
            rest = rest.get(run..).unwrap();
        } else {
            let step = run.max(c.len_utf8());
            out.push_str(rest.get(..step).unwrap());
            rest = rest.get(step..).unwrap();
        }
    }
    out
}

#[tokio::test]
async fn a_chunk_leaves_before_the_next_one_exists() {
    let scene = Scene::start("").await.unwrap();
    for path in [CHAT, COMPLETIONS, RESPONSES] {
        for protocol in PROTOCOLS {
            for usage in [true, false] {
                for after in [1, 3] {
                    // Upstream stops after so many chunks: whatever the gateway waited for would never come.
                    scene.azure.behave(Behaviour {
                        fault: Some(Fault::Stall { after_chunks: after }),
                        ..Behaviour::default()
                    });
                    let body = streamed(path, usage);
                    let mut streaming =
                        open(&scene.gateway, protocol, &scene.acme.primary, path, &body).await;
                    let mut text = String::new();
                    let expected = ["zero", "zero one two"][usize::from(after == 3)];
                    while !words(path, &text).ends_with(expected) {
                        let chunk = streaming.next().await.unwrap().unwrap();
                        text.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
                    }
                    assert_eq!(words(path, &text), expected);
                    assert!(text.ends_with("\n\n"), "whole events, to the last byte");
                }
            }
        }
    }
    scene.azure.behave(Behaviour::default());
    assert!(scene.gateway.metric("gateway_chunk_delay_seconds_count", &[]).await.unwrap() > 0.0);
    wait_until("all are cancelled", async || scene.azure.all_totals().open() == 0).await.unwrap();
    scene.unharmed().await.unwrap();
}

/// What a stream says, of whichever API it is.
fn words(path: &str, text: &str) -> String {
    // Only whole events can be read.
    let whole = text.rfind("\n\n").map_or("", |end| text.get(..end + 2).unwrap());
    let events = events(whole);
    match path {
        CHAT => said(&events),
        COMPLETIONS => events.iter().filter_map(|(_, data)| data["choices"][0]["text"].as_str()).collect(),
        _ => {
            let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta");
            deltas.filter_map(|(_, data)| data["delta"].as_str()).collect()
        }
    }
}

#[tokio::test]
async fn a_stream_is_upstreams_to_the_byte() {
    let scene = Scene::start("").await.unwrap();
    for path in [CHAT, COMPLETIONS, RESPONSES] {
        for protocol in PROTOCOLS {
            for (framing, split_bytes, comment) in [
                (Framing::Lf, None, false),
                (Framing::Crlf, Some(1), true),
                (Framing::Lf, Some(1), false),
                (Framing::Cr, Some(7), false),
            ] {
                scene.azure.behave(Behaviour {
                    tokens: 3,
                    framing,
                    split_bytes,
                    comment,
                    ..Behaviour::default()
                });
                let body = streamed(path, true);
                let mut streaming = open(&scene.gateway, protocol, &scene.acme.primary, path, &body).await;
                let given = streaming.rest_text().await.unwrap();
                assert_eq!(anonymous(&given), anonymous(&direct(&scene.azure).await), "{path} {framing:?}");
            }
        }
    }
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn the_usage_chunk_is_for_those_who_asked() {
    let scene = Scene::start("").await.unwrap();
    for path in [CHAT, COMPLETIONS] {
        for protocol in PROTOCOLS {
            for framing in [Framing::Lf, Framing::Crlf, Framing::Cr] {
                for split_bytes in [None, Some(1), Some(3)] {
                    scene.azure.behave(Behaviour { tokens: 2, framing, split_bytes, ..Behaviour::default() });
                    let body = streamed(path, false);
                    let mut streaming =
                        open(&scene.gateway, protocol, &scene.acme.primary, path, &body).await;
                    let given = streaming.rest_text().await.unwrap();
                    let whole = direct(&scene.azure).await;
                    let end = framing_end(framing);
                    let without: String = whole
                        .split_inclusive(end)
                        .filter(|event| !event.contains("\"total_tokens\""))
                        .collect();
                    assert_ne!(whole, without, "upstream was asked for it");
                    assert_eq!(anonymous(&given), anonymous(&without), "{path} {framing:?} {split_bytes:?}");
                }
            }
        }
    }
    let booked = scene.gateway.metric("gateway_settled_total", &[("source", "upstream")]).await.unwrap();
    assert_eq!(booked, 36.0, "the gateway read what the callers did not see");
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
}

const fn framing_end(framing: Framing) -> &'static str {
    match framing {
        Framing::Lf => "\n\n",
        Framing::Crlf => "\r\n\r\n",
        Framing::Cr => "\r\r",
    }
}

#[tokio::test]
async fn streams_are_settled_to_the_token_and_http2_is_told() {
    let scene = Scene::start("").await.unwrap();
    let mut calls = 0.0;
    for (behaviour, more) in [
        (Behaviour { tokens: 40, cached_tokens: 3, chunk_tokens: 3, ..Behaviour::default() }, json!({})),
        (Behaviour { tokens: 200, ..Behaviour::default() }, json!({"max_tokens": 9})),
        (
            Behaviour { tokens: 12, tool_call: true, ..Behaviour::default() },
            json!({"tools": [{"type": "function", "function": {"name": "say", "parameters": {"type": "object"}}}]}),
        ),
        (Behaviour { tokens: 6, ..Behaviour::default() }, json!({"n": 3})),
    ] {
        for protocol in PROTOCOLS {
            for usage in [true, false] {
                scene.azure.behave(behaviour.clone());
                let before = scene.azure.totals("chat");
                let mut body = streamed(CHAT, usage);
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let mut streaming = open(&scene.gateway, protocol, &scene.acme.primary, CHAT, &body).await;
                let estimate = streaming.headers["x-tokens-consumed"].to_str().unwrap().to_owned();
                assert!(estimate.parse::<u64>().unwrap() > 0);
                for header in ["x-request-id", "x-ratelimit-remaining", "x-tokens-remaining", "x-ms-region"] {
                    assert!(streaming.headers.contains_key(header), "{header}");
                }
                let text = streaming.rest_text().await.unwrap();
                assert!(text.ends_with("data: [DONE]\n\n"));
                let spent = scene.azure.totals("chat").tokens() - before.tokens();
                let trailer =
                    streaming.trailers.get("x-tokens-consumed").map(|value| value.to_str().unwrap());
                let expected = (protocol == Protocol::Http2).then(|| spent.to_string());
                assert_eq!(trailer, expected.as_deref(), "{more}");
                calls += 1.0;
            }
        }
    }
    scene.at_rest().await.unwrap();
    let (totals, metrics) = (scene.azure.totals("chat"), scene.gateway.metrics().await.unwrap());
    let booked = |name| metrics.sum(name, &[("tenant", "acme"), ("deployment", "chat"), ("kind", "stream")]);
    assert_eq!(booked("aoai_tokens_consumed_total"), totals.tokens() as f64);
    assert_eq!(booked("aoai_prompt_tokens_total"), totals.prompt_tokens as f64);
    assert_eq!(booked("aoai_completion_tokens_total"), totals.generated_tokens as f64);
    assert_eq!(booked("aoai_cached_prompt_tokens_total"), 12.0);
    assert_eq!(metrics.sum("gateway_settled_total", &[("tenant", "acme"), ("source", "upstream")]), calls);
    assert_eq!(metrics.sum("gateway_requests_total", &[("tenant", "acme"), ("status", "200")]), calls);
    assert_eq!(metrics.sum("gateway_time_to_first_token_seconds_count", &[]), calls);
    let window = scene.status_of("acme").await.unwrap()["tokensPerMinute"]["used"].clone();
    assert_eq!(window, totals.tokens(), "the window holds what was used");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn responses_streams_are_settled_by_their_last_event() {
    let scene = Scene::start("").await.unwrap();
    for (more, end) in
        [(json!({}), "response.completed"), (json!({"max_output_tokens": 20}), "response.incomplete")]
    {
        for protocol in PROTOCOLS {
            scene.azure.behave(Behaviour { tokens: 60, ..Behaviour::default() });
            let mut body = streamed(RESPONSES, true);
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut streaming = open(&scene.gateway, protocol, &scene.acme.primary, RESPONSES, &body).await;
            let text = streaming.rest_text().await.unwrap();
            assert_eq!(events(&text).last().unwrap().0, end);
        }
    }
    scene.at_rest().await.unwrap();
    let (totals, metrics) = (scene.azure.totals("chat"), scene.gateway.metrics().await.unwrap());
    assert_eq!(metrics.sum("aoai_tokens_consumed_total", &[("tenant", "acme")]), totals.tokens() as f64);
    assert_eq!(metrics.sum("gateway_settled_total", &[("source", "upstream")]), 4.0);
}

#[tokio::test]
async fn without_upstreams_usage_the_gateway_counts() {
    let scene = Scene::start("").await.unwrap();
    for path in [CHAT, COMPLETIONS, RESPONSES] {
        for split_bytes in [None, Some(1)] {
            let usage = UsageReport::Missing;
            scene.azure.behave(Behaviour { tokens: 33, usage, split_bytes, ..Behaviour::default() });
            let before = scene.gateway.metric("aoai_completion_tokens_total", &[]).await.unwrap();
            let body = streamed(path, true);
            let mut streaming = open(&scene.gateway, Protocol::Http2, &scene.acme.primary, path, &body).await;
            streaming.rest().await.unwrap();
            scene.at_rest().await.unwrap();
            let after = scene.gateway.metric("aoai_completion_tokens_total", &[]).await.unwrap();
            assert_eq!(after - before, 33.0, "{path}");
        }
    }
    let metrics = scene.gateway.metrics().await.unwrap();
    assert_eq!(metrics.sum("gateway_settled_total", &[("tenant", "acme"), ("source", "counted")]), 6.0);
    assert_eq!(metrics.sum("gateway_unreadable_usage_total", &[]), 6.0);
    let prompts = scene.azure.all_totals().prompt_tokens as f64;
    assert_eq!(metrics.sum("aoai_prompt_tokens_total", &[]), prompts, "the estimate is exact for plain text");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_taken_for_complete() {
    let scene = Scene::start("").await.unwrap();
    for path in [CHAT, RESPONSES] {
        for protocol in PROTOCOLS {
            for usage in [true, false] {
                for fault in [Fault::Reset { after_chunks: 4 }, Fault::Truncated { after_chunks: 4 }] {
                    scene.azure.behave(Behaviour { fault: Some(fault), ..Behaviour::default() });
                    let request = post(path, &scene.acme.primary, &streamed(path, usage)).unwrap();
                    let mut client = scene.gateway.connect(protocol).await.unwrap();
                    let mut streaming = client.stream(request).await.unwrap();
                    if streaming.status == 502 {
                        // A reset takes along what the gateway had not read yet, the head too.
                        assert!(matches!(fault, Fault::Reset { .. }));
                        continue;
                    }
                    assert_eq!(streaming.status, 200);
                    let mut text = String::new();
                    let error = loop {
                        match streaming.next().await {
                            Ok(Some(chunk)) => text.push_str(std::str::from_utf8(&chunk.bytes).unwrap()),
                            Ok(None) => break None,
                            Err(error) => break Some(error),
                        }
                    };
                    assert!(error.is_some(), "the caller must see that it broke: {text}");
                    if matches!(fault, Fault::Truncated { .. }) {
                        assert_eq!(words(path, &text), "zero one two three", "all that came has passed");
                    }
                }
            }
        }
    }
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
    let metrics = scene.gateway.metrics().await.unwrap();
    let labels = [("tenant", "acme"), ("reason", "upstream_error")];
    assert_eq!(metrics.sum("gateway_requests_total", &labels), 16.0);
    assert!(metrics.sum("gateway_streams_cut_total", &labels) >= 8.0);
    let assumed = metrics.sum("gateway_assumed_tokens_total", &[("tenant", "acme")]);
    let paid = metrics.sum("aoai_completion_tokens_total", &[("tenant", "acme")]);
    let prompts = metrics.sum("aoai_prompt_tokens_total", &[("tenant", "acme")]);
    assert!((32.0..=64.0 + prompts).contains(&(paid + prompts - assumed)), "{paid}, {assumed} of it assumed");
}

#[tokio::test]
async fn an_error_event_passes_and_the_prompt_is_paid() {
    let scene = Scene::start("").await.unwrap();
    let fault = Some(Fault::StreamError { after_chunks: 2 });
    scene.azure.behave(Behaviour { fault, ..Behaviour::default() });
    let body = streamed(CHAT, false);
    let mut streaming = open(&scene.gateway, Protocol::Http1, &scene.acme.primary, CHAT, &body).await;
    let text = streaming.rest_text().await.unwrap();
    assert!(text.contains("\"server_error\""));
    scene.at_rest().await.unwrap();
    let metrics = scene.gateway.metrics().await.unwrap();
    let assumed = metrics.sum("gateway_assumed_tokens_total", &[("tenant", "acme")]);
    assert_eq!(metrics.sum("aoai_completion_tokens_total", &[("tenant", "acme")]) - assumed, 2.0);
    assert!(metrics.sum("aoai_prompt_tokens_total", &[("tenant", "acme")]) > 0.0);
}
