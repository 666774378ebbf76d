//! Streams and answers that are not as documented, but as they come.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use gateway_tests::harness::{chat, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault};
use serde_json::{Value, json};

use super::{CHAT, RESPONSES, call, client, events, open, said, simulator, stream, streamed, with_token};

#[tokio::test]
async fn the_mark_of_the_end_may_have_a_blank_behind_it() {
    let azure = simulator(Behaviour { done_blank: true, ..Behaviour::default() });
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    assert!(streaming.rest_text().await.unwrap().ends_with("data: [DONE] \n\n"));
}

#[tokio::test]
async fn a_stream_may_come_as_any_type_or_none() {
    let azure = simulator(Behaviour::default());
    for (kind, expected) in [
        (None, Some("text/event-stream; charset=utf-8")),
        (Some("text/plain"), Some("text/plain")),
        (Some("application/octet-stream"), Some("application/octet-stream")),
        (Some(""), None),
    ] {
        let content_type = kind.map(str::to_owned);
        azure.behave(Behaviour { content_type, tokens: 2, ..Behaviour::default() });
        let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
        let given = streaming.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        assert_eq!(given.as_deref(), expected);
        assert_eq!(said(&events(&streaming.rest_text().await.unwrap())), "zero one");
        let whole = call(&azure, CHAT, &user_says("hi")).await;
        assert_eq!(whole.header("content-type"), Some("application/json"), "it is for streams alone");
    }
}

#[tokio::test]
async fn a_responses_stream_fails_before_and_after_output() {
    let azure = simulator(Behaviour::default());
    let body = json!({"model": "chat", "input": "hi", "stream": true});
    for after_chunks in [0, 2] {
        let fault = Some(Fault::ResponseFailed { after_chunks });
        azure.behave(Behaviour { fault, reasoning_tokens: 7, ..Behaviour::default() });
        let before = azure.totals("chat").generated_tokens;
        let events = stream(&azure, RESPONSES, &body).await;
        let (name, data) = events.last().unwrap();
        assert_eq!(name, "response.failed");
        assert_eq!(data["sequence_number"], json!(events.len() - 1));
        assert_eq!(data["response"]["status"], "failed");
        assert_eq!(data["response"]["error"]["code"], "server_error");
        assert_eq!(data["response"]["usage"], Value::Null);
        let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta").count();
        assert_eq!(deltas as u64, after_chunks);
        assert_eq!(events[0].0, "response.created");
        let generated = azure.totals("chat").generated_tokens - before;
        assert_eq!(generated, if after_chunks == 0 { 0 } else { 7 + after_chunks });
    }
}

#[tokio::test]
async fn an_error_ends_a_stream_as_its_api_writes_it() {
    let fault = Some(Fault::StreamError { after_chunks: 1 });
    let azure = simulator(Behaviour { fault, ..Behaviour::default() });
    let responses = stream(&azure, RESPONSES, &json!({"model": "chat", "input": "hi", "stream": true})).await;
    let (name, data) = responses.last().unwrap();
    assert_eq!(
        (name.as_str(), &data["type"], &data["code"]),
        ("error", &json!("error"), &json!("server_error"))
    );
    assert_eq!(data["sequence_number"], json!(responses.len() - 1));
    assert!(data["message"].as_str().unwrap().starts_with("The server had an error"));
    let chat = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let (name, data) = chat.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["type"]), ("", &json!("server_error")));
    assert_eq!(said(&chat), "zero");
    let whole = call(&azure, CHAT, &user_says("hi")).await;
    assert_eq!(whole.status, 500, "an answer in one piece cannot fail half-way");
}

#[tokio::test]
async fn gzip_comes_unasked_whole_and_event_by_event() {
    let azure = simulator(Behaviour { gzip: true, tokens: 3, ..Behaviour::default() });
    let whole = call(&azure, CHAT, &user_says("hi")).await;
    assert_eq!(whole.header("content-encoding"), Some("gzip"));
    let body: Value = serde_json::from_reader(GzDecoder::new(&whole.body[..])).unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 3);
    // The stream stays open after its first word, which can be read all the same.
    let fault = Some(Fault::Stall { after_chunks: 1 });
    azure.behave(Behaviour { gzip: true, fault, ..Behaviour::default() });
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let mut compressed = Vec::new();
    let mut text = String::new();
    while !text.contains("\"zero\"") {
        compressed.extend(streaming.next().await.unwrap().unwrap().bytes);
        let mut bytes = Vec::new();
        // The end is missing, which is no matter here.
        drop(GzDecoder::new(&compressed[..]).read_to_end(&mut bytes));
        text = String::from_utf8(bytes).unwrap();
    }
    azure.behave(Behaviour { gzip: true, comment: true, tokens: 2, ..Behaviour::default() });
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let bytes: Vec<u8> = streaming.rest().await.unwrap().into_iter().flat_map(|chunk| chunk.bytes).collect();
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    assert!(text.starts_with(": hello"));
    assert_eq!(said(&events(&text)), "zero one");
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn text_may_come_where_no_documentation_has_it() {
    let unknown_delta = Some("reasoning".to_owned());
    let azure = simulator(Behaviour { unknown_delta, tokens: 3, ..Behaviour::default() });
    let chat = stream(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let thought: String =
        chat.iter().filter_map(|(_, data)| data["choices"][0]["delta"]["reasoning"].as_str()).collect();
    assert_eq!((thought.as_str(), said(&chat).as_str()), ("zero one two", ""));
    let responses = stream(&azure, RESPONSES, &json!({"model": "chat", "input": "hi", "stream": true})).await;
    let deltas = responses.iter().filter(|(name, _)| name == "response.reasoning.delta");
    assert_eq!(deltas.filter_map(|(_, data)| data["delta"].as_str()).collect::<String>(), "zero one two");
    assert_eq!(azure.totals("chat").generated_tokens, 6, "wherever it is said, it is generated");
}

#[tokio::test]
async fn a_buffering_filter_holds_back_what_was_generated() {
    let slow = Behaviour {
        tokens: 1000,
        chunk_delay: Duration::from_millis(1),
        flush_tokens: Some(300),
        ..Behaviour::default()
    };
    let azure = simulator(slow);
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let mut text = String::new();
    // What comes before the first word is not held back; 100 words are, until they are 300.
    while !text.contains("\"role\"") {
        text += std::str::from_utf8(&streaming.next().await.unwrap().unwrap().bytes).unwrap();
    }
    wait_until("100 are generated", async || azure.totals("chat").generated_tokens >= 100).await.unwrap();
    assert_eq!(said(&events(&text)), "");
    drop(streaming);
    wait_until("the stream is abandoned", async || azure.totals("chat").abandoned == 1).await.unwrap();
    assert!(azure.totals("chat").generated_tokens >= 100, "held back, and generated");
    azure.behave(Behaviour { tokens: 1000, flush_tokens: Some(300), ..Behaviour::default() });
    let mut streaming = open(&azure, CHAT, &streamed(user_says("hi"), &json!({}))).await;
    let events = events(&streaming.rest_text().await.unwrap());
    assert_eq!(said(&events).split(' ').count(), 1000, "the end takes along what is left");
    assert_eq!(events.last().unwrap().1, "[DONE]");
}

#[tokio::test]
async fn every_fault_of_the_wire_can_be_steered_by_a_call() {
    let azure = simulator(Behaviour::default());
    let text =
        r#"sim:{"done_blank":true,"content_type":"text/plain","unknown_delta":"thinking","flush_tokens":5}"#;
    let mut streaming = open(&azure, CHAT, &streamed(user_says(text), &json!({}))).await;
    assert_eq!(streaming.headers["content-type"], "text/plain");
    let text = streaming.rest_text().await.unwrap();
    assert!(text.contains("\"thinking\"") && text.ends_with("[DONE] \n\n"));
    let text = r#"sim:{"fault":{"response_failed":{"after_chunks":0}}}"#;
    let failed = stream(&azure, RESPONSES, &json!({"model": "chat", "input": text, "stream": true})).await;
    assert_eq!(failed.last().unwrap().0, "response.failed");
    let refused = call(&azure, CHAT, &user_says(r#"sim:{"fault":"missing_role"}"#)).await;
    assert_eq!(refused.error().as_deref(), Some("PermissionDenied"));
}

#[tokio::test]
async fn a_role_that_is_missing_is_named_in_a_401() {
    let azure = simulator(Behaviour::default());
    let fault = Some(Fault::MissingRole);
    azure.behave_for("chat", Behaviour { fault, ..Behaviour::default() });
    let reply = call(&azure, CHAT, &user_says("hi")).await;
    let body = reply.json().unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!((reply.status.as_u16(), &body["error"]["code"]), (401, &json!("PermissionDenied")));
    assert!(
        message.contains("`Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action`")
    );
    assert!(message.contains("`POST /openai/deployments/{deployment-id}/chat/completions`"), "{message}");
    let body = json!({"model": "chat", "input": "hi"});
    let reply = call(&azure, RESPONSES, &body).await.json().unwrap();
    assert!(reply["error"]["message"].as_str().unwrap().contains("OpenAI/responses/write` to perform"));
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    assert_eq!(call(&azure, other, &user_says("hi")).await.status, 200, "it is one deployment's");
    assert_eq!(azure.totals("chat").calls, 0);
}

#[tokio::test]
async fn every_answer_has_request_ids_of_its_own_that_are_recorded() {
    let azure = simulator(Behaviour::default());
    let mut seen = Vec::new();
    for body in [user_says("hi"), json!({}), streamed(user_says("hi"), &json!({}))] {
        let reply = call(&azure, CHAT, &body).await;
        let recorded = azure.requests().pop().unwrap();
        assert_eq!(reply.header("x-request-id"), Some(&*recorded.request_id));
        assert_eq!(reply.header("apim-request-id"), Some(&*recorded.apim_request_id));
        seen.extend([recorded.request_id, recorded.apim_request_id]);
    }
    let other = simulator(Behaviour::default());
    call(&other, CHAT, &user_says("hi")).await;
    seen.push(other.requests().pop().unwrap().request_id);
    for id in &seen {
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7);
}

#[tokio::test]
async fn a_callers_own_request_id_comes_back_where_it_asks() {
    let azure = simulator(Behaviour::default());
    for (wanted, returned) in [(Some("true"), Some("mine")), (Some("false"), None), (None, None)] {
        let mut request = with_token(&azure, chat("chat", "", &user_says("hi")).unwrap());
        request.headers_mut().insert("x-ms-client-request-id", "mine".parse().unwrap());
        if let Some(wanted) = wanted {
            request.headers_mut().insert("x-ms-return-client-request-id", wanted.parse().unwrap());
        }
        let reply = client(&azure).await.send(request).await.unwrap();
        assert_eq!(reply.header("x-ms-client-request-id"), returned, "{wanted:?}");
    }
}

#[tokio::test]
async fn the_path_decides_whatever_model_the_body_names() {
    let azure = simulator(Behaviour::default());
    for model in [json!(null), json!(""), json!("gpt-4o-2024-08-06"), json!("another"), json!(7)] {
        let mut body = user_says("hi");
        body["model"] = model.clone();
        assert_eq!(call(&azure, CHAT, &body).await.status, 200, "{model}");
    }
    assert_eq!((azure.totals("chat").calls, azure.all_totals().calls), (5, 5));
    let request = post("/openai/v1/chat/completions", "", &user_says("hi")).unwrap();
    let reply = client(&azure).await.send(with_token(&azure, request)).await.unwrap();
    assert_eq!(reply.status, 400, "nothing else names the deployment there");
}
