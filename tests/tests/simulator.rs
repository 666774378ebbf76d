//! The simulator itself: what it answers, refuses, counts and records.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

#[path = "simulator/sse.rs"]
mod sse;
#[path = "simulator/strict.rs"]
mod strict;
#[path = "simulator/wire.rs"]
mod wire;

use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{Client, Reply, Streaming, chat, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault, Framing, Options, Simulator, UsageReport};
use http::Request;
use http::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};
use sse::{events, said};

fn simulator(behaviour: Behaviour) -> Simulator {
    Simulator::start(Options { behaviour, ..Options::default() }).unwrap()
}

fn with_token(simulator: &Simulator, mut request: Request<Bytes>) -> Request<Bytes> {
    let token = format!("Bearer {}", simulator.token()).parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, token);
    request
}

async fn client(simulator: &Simulator) -> Client {
    Client::plain(simulator.address()).await.unwrap()
}

async fn open(simulator: &Simulator, path: &str, body: &Value) -> Streaming {
    let request = with_token(simulator, post(path, "", body).unwrap());
    client(simulator).await.stream(request).await.unwrap()
}

async fn call(simulator: &Simulator, path: &str, body: &Value) -> Reply {
    let request = with_token(simulator, post(path, "", body).unwrap());
    client(simulator).await.send(request).await.unwrap()
}

async fn stream(simulator: &Simulator, path: &str, body: &Value) -> Vec<(String, Value)> {
    events(&open(simulator, path, body).await.rest_text().await.unwrap())
}

fn streamed(mut body: Value, more: &Value) -> Value {
    body["stream"] = json!(true);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const COMPLETIONS: &str = "/openai/deployments/instruct/completions?api-version=2024-10-21";
const EMBEDDINGS: &str = "/openai/deployments/embed/embeddings?api-version=2024-10-21";
const RESPONSES: &str = "/openai/v1/responses";

#[tokio::test]
async fn a_chat_answer_has_azures_shape_headers_and_usage() {
    let azure = simulator(Behaviour { cached_tokens: 4, ..Behaviour::default() });
    let reply = call(&azure, CHAT, &user_says("Say something.")).await;
    let body = reply.json().unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["prompt_filter_results"][0]["prompt_index"], 0);
    assert_eq!(body["choices"][0]["content_filter_results"]["hate"]["severity"], "safe");
    // Three around the message, one for "user", three for the text and three to prime.
    assert_eq!(body["usage"]["prompt_tokens"], 10);
    assert_eq!(body["usage"]["completion_tokens"], 16);
    assert_eq!(body["usage"]["total_tokens"], 26);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    for header in ["apim-request-id", "x-ms-region", "x-ratelimit-remaining-tokens", "x-request-id"] {
        assert!(reply.header(header).is_some(), "{header}");
    }
    let totals = azure.totals("chat");
    assert_eq!(
        (totals.calls, totals.prompt_tokens, totals.generated_tokens, totals.finished),
        (1, 10, 16, 1)
    );
}

#[tokio::test]
async fn a_chat_stream_has_azures_events_in_order() {
    let azure = simulator(Behaviour { tokens: 5, chunk_tokens: 2, ..Behaviour::default() });
    let body = streamed(user_says("hi"), &json!({"stream_options": {"include_usage": true}}));
    let events = stream(&azure, CHAT, &body).await;
    let choices: Vec<_> =
        events.iter().map(|(_, data)| data["choices"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(choices, [0, 1, 1, 1, 1, 1, 0, 0], "filter, role, three chunks, finish, usage, done");
    assert!(events[0].1["prompt_filter_results"].is_array());
    assert_eq!(events[1].1["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(said(&events), "zero one two three four");
    assert_eq!(events[5].1["choices"][0]["finish_reason"], "stop");
    assert!(events[..6].iter().all(|(_, data)| data.get("usage") == Some(&Value::Null)));
    assert_eq!(events[6].1["usage"]["completion_tokens"], 5);
    assert_eq!(events[7].1, "[DONE]");
}

#[tokio::test]
async fn usage_is_streamed_only_to_those_who_ask() {
    let azure = simulator(Behaviour::default());
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    assert!(events.iter().all(|(_, data)| data.get("usage").is_none()));
}

#[tokio::test]
async fn caps_cut_every_kind_of_answer_and_say_so() {
    let azure = simulator(Behaviour { tokens: 100, ..Behaviour::default() });
    for cap in ["max_tokens", "max_completion_tokens"] {
        let mut body = user_says("hi");
        body[cap] = json!(7);
        let body = call(&azure, CHAT, &body).await.json().unwrap();
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["completion_tokens"], 7);
    }
    let body = call(&azure, COMPLETIONS, &json!({"prompt": "hi"})).await.json().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 16, "the default of this API");
    let body = json!({"model": "chat", "input": "hi", "max_output_tokens": 20});
    let body = call(&azure, RESPONSES, &body).await.json().unwrap();
    assert_eq!(body["status"], "incomplete");
    assert_eq!(body["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(body["usage"]["output_tokens"], 20);
}

#[tokio::test]
async fn several_choices_are_all_sent_counted_and_ended() {
    let azure = simulator(Behaviour { tokens: 4, ..Behaviour::default() });
    let more = json!({"n": 3, "stream_options": {"include_usage": true}});
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &more)).await;
    let ends = events.iter().filter(|(_, data)| data["choices"][0]["finish_reason"] == "stop").count();
    assert_eq!(ends, 3);
    assert_eq!(events[events.len() - 2].1["usage"]["completion_tokens"], 12);
    assert_eq!(azure.totals("chat").generated_tokens, 12);
}

#[tokio::test]
async fn reasoning_is_billed_and_not_shown() {
    let azure = simulator(Behaviour { tokens: 2, reasoning_tokens: 30, ..Behaviour::default() });
    let more = json!({"stream_options": {"include_usage": true}});
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &more)).await;
    let usage = &events[events.len() - 2].1["usage"];
    assert_eq!(said(&events), "zero one");
    assert_eq!(usage["completion_tokens"], 32);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 30);
    let refused = call(&azure, CHAT, &json!({"messages": [], "max_tokens": 5})).await;
    assert_eq!(refused.error().as_deref(), Some("unsupported_parameter"));
}

#[tokio::test]
async fn a_tool_is_called_when_the_caller_demands_it() {
    let azure = simulator(Behaviour { tokens: 3, ..Behaviour::default() });
    let tools =
        json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"});
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &tools)).await;
    let calls: Vec<_> =
        events.iter().map(|(_, data)| &data["choices"][0]["delta"]["tool_calls"][0]).collect();
    assert_eq!(calls[1]["function"]["name"], "f");
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    let arguments: Value = serde_json::from_str(&arguments).unwrap();
    assert_eq!(arguments["words"], "zero one two");
    assert_eq!(events[events.len() - 2].1["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn a_responses_stream_has_numbered_named_events_and_no_done() {
    let azure = simulator(Behaviour { tokens: 2, ..Behaviour::default() });
    let body = json!({"model": "chat", "input": "hi", "stream": true});
    let events = stream(&azure, RESPONSES, &body).await;
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
        assert_eq!(data["type"], name.as_str());
    }
    let response = &events[9].1["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], "zero one");
    assert_eq!(response["usage"]["output_tokens"], 2);
}

#[tokio::test]
async fn a_responses_stream_that_hits_its_cap_is_incomplete() {
    let azure = simulator(Behaviour { tokens: 50, ..Behaviour::default() });
    let body = json!({"model": "chat", "input": "hi", "stream": true, "max_output_tokens": 16});
    let events = stream(&azure, RESPONSES, &body).await;
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "response.incomplete");
    assert_eq!(data["response"]["usage"]["output_tokens"], 16);
}

#[tokio::test]
async fn embeddings_come_as_numbers_or_base64() {
    let azure = simulator(Behaviour::default());
    let body = json!({"input": ["hello world", "hello"], "dimensions": 8});
    let numbers = call(&azure, EMBEDDINGS, &body).await.json().unwrap();
    assert_eq!(numbers["data"].as_array().unwrap().len(), 2);
    assert_eq!(numbers["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(numbers["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let body = json!({"input": "hello", "dimensions": 3, "encoding_format": "base64"});
    let text = call(&azure, EMBEDDINGS, &body).await.json().unwrap();
    assert_eq!(text["data"][0]["embedding"], "AACAPwAAAAAAAAAA");
}

#[tokio::test]
async fn keys_and_foreign_tokens_are_refused_as_azure_refuses() {
    let azure = simulator(Behaviour::default());
    let without = chat("chat", "", &user_says("hi")).unwrap();
    let mut foreign = without.clone();
    foreign.headers_mut().insert(AUTHORIZATION, "Bearer eyJ0.e30.x".parse().unwrap());
    let mut with_key = with_token(&azure, without.clone());
    with_key.headers_mut().insert(HeaderName::from_static("api-key"), "k".parse().unwrap());
    let mut key_in_query = with_token(&azure, without.clone());
    *key_in_query.uri_mut() = format!("{CHAT}&subscription-key=k").parse().unwrap();
    for request in [without, foreign, with_key, key_in_query] {
        let reply = Client::plain(azure.address()).await.unwrap().send(request).await.unwrap();
        assert_eq!(reply.status, 401);
        assert_eq!(reply.error().as_deref(), Some("401"));
    }
    assert_eq!(azure.all_totals().calls, 0);
    assert_eq!(azure.requests().len(), 4, "refused calls are recorded");
}

#[tokio::test]
async fn a_token_that_is_over_or_withdrawn_is_refused() {
    let azure = simulator(Behaviour::default());
    azure.set_token_lifetime(Duration::ZERO);
    assert_eq!(call(&azure, CHAT, &user_says("hi")).await.status, 401);
    azure.set_token_lifetime(Duration::from_secs(60));
    let request = with_token(&azure, chat("chat", "", &user_says("hi")).unwrap());
    azure.revoke_tokens();
    let reply = Client::plain(azure.address()).await.unwrap().send(request).await.unwrap();
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn what_was_sent_is_recorded_byte_for_byte() {
    let azure = simulator(Behaviour::default());
    let odd = "{ \"messages\" : [ ] ,\"x\":\"\u{e9}\" }";
    let mut request = with_token(&azure, chat("chat", "", &Value::Null).unwrap());
    request.headers_mut().insert("x-odd", "A b".parse().unwrap());
    *request.body_mut() = Bytes::from(odd);
    let reply = Client::plain(azure.address()).await.unwrap().send(request).await.unwrap();
    assert_eq!(reply.status, 200);
    let recorded = azure.requests().pop().unwrap();
    assert_eq!(recorded.method, "POST");
    assert_eq!(recorded.target, CHAT);
    assert_eq!(recorded.header("x-odd"), Some("A b"));
    assert_eq!(recorded.body, odd);
    assert!(recorded.complete);
    assert!(recorded.contains("A b") && !recorded.contains("a secret"));
}

#[tokio::test]
async fn only_the_last_requests_are_kept() {
    let azure = Simulator::start(Options { recorded: 2, ..Options::default() }).unwrap();
    for text in ["a", "b", "c"] {
        call(&azure, CHAT, &user_says(text)).await;
    }
    let requests = azure.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].contains("\"b\"") && requests[1].contains("\"c\""));
}

#[tokio::test]
async fn every_split_and_framing_carries_the_same_events() {
    let azure = simulator(Behaviour { tokens: 2, comment: true, ..Behaviour::default() });
    for framing in [Framing::Lf, Framing::Crlf, Framing::Cr] {
        for split in [1, 2, 3, 7, 64, 1000] {
            azure.behave(Behaviour {
                tokens: 2,
                comment: true,
                framing,
                split_bytes: Some(split),
                ..Behaviour::default()
            });
            let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
            let chunks = streaming.rest().await.unwrap();
            assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= split), "each piece is an HTTP chunk");
            let text: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.bytes).collect();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.contains("\r\n"), framing == Framing::Crlf);
            assert!(text.starts_with(": "));
            let events = events(&text);
            assert_eq!(said(&events), "zero one", "{framing:?} in {split}");
            assert_eq!(events.last().unwrap().1, "[DONE]");
        }
    }
}

#[tokio::test]
async fn a_reset_comes_after_the_chunks_it_was_told() {
    let fault = Some(Fault::Reset { after_chunks: 3 });
    let azure = simulator(Behaviour { fault, tokens: 10, ..Behaviour::default() });
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let mut text = String::new();
    let error = loop {
        match streaming.next().await {
            Ok(chunk) => text.push_str(std::str::from_utf8(&chunk.unwrap().bytes).unwrap()),
            Err(error) => break error,
        }
    };
    assert!(format!("{error:?}").contains("reset"), "{error:?}");
    assert_eq!(said(&events(&text)), "zero one two");
    let totals = azure.totals("chat");
    assert_eq!((totals.generated_tokens, totals.abandoned), (3, 1));
}

#[tokio::test]
async fn answers_break_off_in_every_way_they_are_told() {
    let azure = simulator(Behaviour::default());
    for fault in [Fault::Reset { after_chunks: 1 }, Fault::Truncated { after_chunks: 1 }] {
        azure.behave(Behaviour { fault: Some(fault), ..Behaviour::default() });
        let mut whole = open(&azure, CHAT, &user_says("hi")).await;
        assert!(whole.rest().await.is_err(), "{fault:?}");
        let mut parts = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
        assert!(parts.rest().await.is_err(), "{fault:?}");
    }
    azure.behave(Behaviour { fault: Some(Fault::Reset { after_chunks: 0 }), ..Behaviour::default() });
    let request = with_token(&azure, chat("chat", "", &user_says("hi")).unwrap());
    assert!(Client::plain(azure.address()).await.unwrap().send(request).await.is_err());
    let fault = Some(Fault::StreamError { after_chunks: 2 });
    azure.behave(Behaviour { fault, ..Behaviour::default() });
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    assert_eq!(events.last().unwrap().1["error"]["type"], "server_error");
}

#[tokio::test]
async fn refusals_have_azures_status_body_and_times() {
    let azure = simulator(Behaviour::default());
    let table = [
        (Fault::RateLimited { retry_after_ms: 1500 }, 429, Some("429")),
        (Fault::ContentFilter, 400, Some("content_filter")),
        (Fault::DeploymentNotFound, 404, Some("DeploymentNotFound")),
        (Fault::MissingRole, 401, Some("PermissionDenied")),
        (Fault::ServerError, 500, None),
        (Fault::Unavailable, 503, None),
    ];
    for (fault, status, code) in table {
        azure.behave_once(Behaviour { fault: Some(fault), ..Behaviour::default() });
        let reply = call(&azure, CHAT, &user_says("hi")).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.error().as_deref(), code);
        if status == 429 {
            assert_eq!(reply.header("retry-after"), Some("2"));
            assert_eq!(reply.header("retry-after-ms"), Some("1500"));
        }
    }
    assert_eq!(call(&azure, CHAT, &user_says("hi")).await.status, 200, "each fault was for one call");
    assert_eq!(call(&azure, "/openai/deployments/chat/audio", &json!({})).await.status, 404);
    assert_eq!(azure.all_totals().calls, 2, "a filtered prompt was processed");
}

#[tokio::test]
async fn bodies_that_azure_refuses_are_refused() {
    let azure = simulator(Behaviour::default());
    let table = [
        (CHAT, json!({}), "missing_required_parameter"),
        (CHAT, json!({"messages": "hi"}), "invalid_type"),
        (CHAT, json!({"messages": [], "max_tokens": 0}), "integer_below_min_value"),
        (
            CHAT,
            json!({"messages": [], "max_tokens": 1, "max_completion_tokens": 1}),
            "invalid_parameter_combination",
        ),
        (CHAT, json!({"messages": [], "n": 129}), "integer_above_max_value"),
        (
            RESPONSES,
            json!({"model": "chat", "input": "hi", "max_output_tokens": 15}),
            "integer_below_min_value",
        ),
    ];
    for (path, body, code) in table {
        let reply = call(&azure, path, &body).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (400, Some(code)), "{body}");
    }
    let options = json!({"messages": [], "stream_options": {"include_usage": true}});
    assert_eq!(call(&azure, CHAT, &options).await.status, 400, "stream_options without a stream");
}

#[tokio::test]
async fn usage_can_be_missing_or_wrong() {
    let azure = simulator(Behaviour { usage: UsageReport::Missing, ..Behaviour::default() });
    assert!(call(&azure, CHAT, &user_says("hi")).await.json().unwrap().get("usage").is_none());
    let more = json!({"stream_options": {"include_usage": true}});
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &more)).await;
    assert!(events.iter().all(|(_, data)| !data["usage"].is_object()));
    azure.behave(Behaviour { usage: UsageReport::Wrong { input: 1, output: 2 }, ..Behaviour::default() });
    let body = call(&azure, CHAT, &user_says("hi")).await.json().unwrap();
    assert_eq!(
        (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn a_call_steers_the_simulator_by_its_text_or_its_user() {
    let azure = simulator(Behaviour::default());
    let body = call(&azure, CHAT, &user_says(r#"sim:{"tokens":3} words"#)).await.json().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 3);
    let body = json!({"model": "chat", "input": "hi", "user": r#"sim:{"tokens":4}"#});
    assert_eq!(call(&azure, RESPONSES, &body).await.json().unwrap()["usage"]["output_tokens"], 4);
    let parts =
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "sim:{\"tokens\":5}"}]}]});
    assert_eq!(call(&azure, CHAT, &parts).await.json().unwrap()["usage"]["completion_tokens"], 5);
    assert_eq!(
        call(&azure, CHAT, &user_says(r#"sim:{"tokn":3}"#)).await.error().as_deref(),
        Some("simulator")
    );
}

#[tokio::test]
async fn generation_stops_when_the_caller_hangs_up() {
    let slow = Behaviour { tokens: 100_000, chunk_delay: Duration::from_millis(1), ..Behaviour::default() };
    let azure = simulator(slow);
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    while !std::str::from_utf8(&streaming.next().await.unwrap().unwrap().bytes).unwrap().contains(" three") {}
    drop(streaming);
    wait_until("the stream is abandoned", async || azure.totals("chat").abandoned == 1).await.unwrap();
    let seen = azure.totals("chat").generated_tokens;
    assert!((4..100_000).contains(&seen), "{seen}");
    let request = with_token(&azure, chat("chat", "", &user_says("hi")).unwrap());
    let mut client = Client::plain(azure.address()).await.unwrap();
    let waiting = tokio::spawn(async move { client.stream(request).await.is_ok() });
    wait_until("the whole answer is under way", async || azure.totals("chat").generated_tokens > seen)
        .await
        .unwrap();
    waiting.abort();
    wait_until("the whole answer is abandoned", async || azure.totals("chat").abandoned == 2).await.unwrap();
    assert_eq!(azure.totals("chat").open(), 0);
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_recorded_as_such_and_not_served() {
    use tokio::io::AsyncWriteExt as _;
    let azure = simulator(Behaviour::default());
    let mut stream = tokio::net::TcpStream::connect(azure.address()).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{\"messages\"");
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    wait_until("it is recorded", async || !azure.requests().is_empty()).await.unwrap();
    let recorded = azure.requests().pop().unwrap();
    assert!(!recorded.complete);
    assert_eq!(recorded.body, "{\"messages\"");
    assert_eq!(azure.all_totals().calls, 0);
}

#[tokio::test]
async fn fixed_answers_are_as_good_as_others() {
    let azure = Simulator::start(Options { fixed_answers: true, recorded: 0, ..Options::default() }).unwrap();
    let body = call(&azure, CHAT, &user_says("hi")).await.json().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 16);
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    assert_eq!(events.last().unwrap().1, "[DONE]");
    assert_eq!(azure.totals("chat").calls, 2);
    assert!(azure.requests().is_empty());
}

#[tokio::test]
async fn stamped_chunks_say_when_they_left() {
    let azure = simulator(Behaviour { stamp: true, ..Behaviour::default() });
    let events = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let stamps: Vec<u64> = events.iter().filter_map(|(_, data)| data["sent_unix_ns"].as_u64()).collect();
    assert_eq!(stamps.len(), 16);
    assert!(stamps.is_sorted());
}
