//! Upstreams that answer as Azure seldom does: with errors that cost, and with streams that keep to no limit or do not end.

use std::io::Write as _;

use gateway_tests::harness::{DEADLINE, Protocol, Scene, ScriptedUpstream, chat, user_says, wait_until};
use serde_json::json;
use tokio::time::timeout;

use super::{PROTOCOLS, booked, streamed};

/// An endless stream of one word after the other, from an upstream that knows no limit.
fn endless() -> ScriptedUpstream {
    ScriptedUpstream::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let event = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}],\"usage\":null}\n\n";
        let chunk = format!("{:x}\r\n{}\r\n", event.len() * 200, event.repeat(200));
        loop {
            stream.write_all(chunk.as_bytes())?;
        }
    })
    .unwrap()
}

#[tokio::test]
async fn errors_that_azure_bills_are_paid_for() {
    for (status, code, paid) in [
        // It has worked until the time was over, on as many tokens as it was allowed.
        ("408 Request Timeout", "timeout", 40.0),
        ("400 Bad Request", "context_length_exceeded", 0.0),
        ("400 Bad Request", "unsupported_value", -1.0),
    ] {
        let body = format!("{{\"error\":{{\"code\":\"{code}\"}}}}");
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let upstream = ScriptedUpstream::start(move |stream| stream.write_all(answer.as_bytes())).unwrap();
        let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
        let mut body = user_says("hi");
        body["max_tokens"] = 40.into();
        let reply = scene.gateway.call(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
        assert!(status.starts_with(reply.status.as_str()), "{reply:?}");
        assert_eq!(booked(&scene, "aoai_completion_tokens_total").await, f64::max(paid, 0.0), "{code}");
        assert_eq!(booked(&scene, "aoai_prompt_tokens_total").await > 0.0, paid >= 0.0, "{code}");
    }
}

#[tokio::test]
async fn an_upstream_that_ignores_its_cap_is_cut_well_formed() {
    let upstream = endless();
    for protocol in PROTOCOLS {
        let limit = "[tiers.default]\ntokens_per_minute = 3000\n";
        let scene = Scene::beside(upstream.address(), "", limit).await.unwrap();
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let body = streamed(user_says("hi"));
        let mut streaming = client.stream(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
        assert_eq!(streaming.status, 200);
        let text = streaming.rest_text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"));
        assert!(text.contains("\"finish_reason\":\"length\""));
        assert!(text.contains("\"code\":\"token_budget_exceeded\""));
        scene.at_rest().await.unwrap();
        let cut = [("tenant", "acme"), ("reason", "token_budget_exceeded")];
        assert_eq!(scene.gateway.metric("gateway_streams_cut_total", &cut).await.unwrap(), 1.0);
        let used = scene.status_of("acme").await.unwrap()["tokensPerMinute"]["used"].as_u64().unwrap();
        // What had passed when the end was seen: not more than a few reads from the socket.
        assert!(used < 40_000, "{used}");
    }
}

#[tokio::test]
async fn a_flood_of_chunks_does_not_outrun_a_suspension() {
    let upstream = endless();
    let scene = Scene::beside(
        upstream.address(),
        "",
        "[tiers.default]\nceiling = \"soft\"\ntokens_per_minute = 4000000000\n",
    )
    .await
    .unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let body = streamed(user_says("hi"));
    let mut streaming = client.stream(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
    streaming.next().await.unwrap().unwrap();
    scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
    let ends = async { while streaming.next().await.is_ok_and(|chunk| chunk.is_some()) {} };
    timeout(DEADLINE, ends).await.unwrap();
    scene.at_rest().await.unwrap();
}

#[tokio::test]
async fn a_stream_of_a_known_length_can_be_ended_before_it() {
    let upstream = ScriptedUpstream::start(|stream| {
        let event =
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}],\"usage\":null}\n\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 500\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(event.as_bytes())?;
        // The rest never comes: this waits until the gateway hangs up.
        std::io::copy(stream, &mut std::io::sink()).map(drop)
    })
    .unwrap();
    let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let mut body = streamed(user_says("hi"));
        body["stream_options"] = json!({"include_usage": true});
        let request = chat("odd", &scene.acme.primary, &body).unwrap();
        let mut streaming = client.stream(request).await.unwrap();
        streaming.next().await.unwrap().unwrap();
        scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
        assert!(streaming.rest_text().await.unwrap().ends_with("data: [DONE]\n\n"));
        scene.gateway.site().run(&["tenant", "resume", "acme"]).unwrap();
        wait_until("it may call again", async || {
            let models = http::Request::get("/openai/v1/models").header("api-key", &scene.acme.primary);
            scene.gateway.call(models.body(bytes::Bytes::new()).unwrap()).await.unwrap().status == 200
        })
        .await
        .unwrap();
    }
}
