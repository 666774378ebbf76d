//! Attacks by not reading: answers that are never taken, and streams that are taken slowly. And the upstreams for them,
//! which answer with bytes made once.

use std::future::poll_fn;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::attack::{Target, again};
use crate::harness::ScriptedUpstream;

/// An upstream whose every answer is one JSON document, a little shorter than the longest that is held back.
pub(super) fn large_answers() -> std::io::Result<ScriptedUpstream> {
    let usage = r#""usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let body = format!(r#"{{"object":"list","data":"{}",{usage}"#, "a".repeat(1_000_000));
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    ScriptedUpstream::start(move |stream| stream.write_all(answer.as_bytes()))
}

/// An upstream whose streams never end, and are written as fast as the gateway takes any model to write: 400 tokens a second.
#[expect(clippy::disallowed_methods, reason = "each of its streams is a thread of its own")]
pub(super) fn endless_streams() -> std::io::Result<ScriptedUpstream> {
    let text = " a".repeat(TOKENS_AT_ONCE);
    // As long as Azure's chunks are.
    let id = "chatcmpl-".to_owned() + &"x".repeat(200);
    let event = format!(
        "data: {{\"id\":\"{id}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    );
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    ScriptedUpstream::start(move |stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        loop {
            stream.write_all(chunk.as_bytes())?;
            std::thread::sleep(BETWEEN_CHUNKS);
        }
    })
}

/// Answers of which no byte may be sent: 250 on each of 4 connections.
pub(super) async fn held(target: Target) -> anyhow::Result<()> {
    again(target, 4, |target| async move {
        let stream = target.http2().await?;
        let (mut sender, connection) =
            h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await?;
        let connection = tokio::spawn(connection);
        let path = "/openai/deployments/large/embeddings?api-version=2024-10-21";
        let mut answers = Vec::new();
        for _ in 0..HELD {
            let request = Request::post(format!("https://gateway{path}")).header("api-key", &target.key);
            poll_fn(|cx| sender.poll_ready(cx)).await?;
            let (answer, mut body) = sender.send_request(request.body(())?, false)?;
            target.tries(1);
            body.send_data(Bytes::from_static(br#"{"input":"hi"}"#), true)?;
            answers.push(answer);
        }
        // Until the gateway closes the connection.
        connection.await??;
        drop(answers);
        Ok(())
    })
    .await
}

/// Streams that are read a few bytes at a time.
pub(super) async fn slow(target: Target) -> anyhow::Result<()> {
    again(target, 200, |target| async move {
        let mut stream = target.narrow().await?;
        target.tries(1);
        let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
        let head = format!(
            "POST /openai/deployments/endless/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n\
             host: gateway\r\napi-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            target.key,
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await?;
        let mut mouthful = [0; 256];
        while stream.read(&mut mouthful).await? > 0 {
            sleep(PAUSE).await;
        }
        Ok(())
    })
    .await
}

const TOKENS_AT_ONCE: usize = 8;
const BETWEEN_CHUNKS: Duration = Duration::from_millis(20);
const HELD: usize = 250;
const PAUSE: Duration = Duration::from_millis(100);
