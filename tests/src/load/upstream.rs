//! A canned Azure OpenAI chat deployment, over HTTP/1.1 in clear: always the same answer, whatever is asked, at a cost
//! that disappears beside a proxy's.
//!
//! Every chunk of a stream carries the monotonic time at which it was written, so that the reader can tell how long
//! it was under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::load::LoadError;
use crate::load::http::{Head, HttpError};
use crate::load::process::monotonic_ns;
use crate::load::streams::Pace;

/// Answers on `address` until the process ends.
///
/// # Errors
///
/// [`LoadError::Io`] when `address` cannot be listened on.
pub async fn serve(address: SocketAddr) -> Result<(), LoadError> {
    let listener = TcpListener::bind(address).await?;
    let single: Arc<[u8]> = single_answer().into();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let single = Arc::clone(&single);
        // A broken connection is the proxy's to report.
        connections.spawn(async move { answer(stream, &single).await.err() });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers one call after the other; `Ok` when the peer has closed between two calls.
async fn answer(mut stream: TcpStream, single: &[u8]) -> Result<(), LoadError> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let Some(length) = read_request(&mut stream, &mut buffer).await? else { return Ok(()) };
        let request = buffer.get(..length).unwrap_or_default();
        if let Some(stream_request) = StreamRequest::find(request) {
            stream_answer(&mut stream, stream_request).await?;
        } else {
            stream.write_all(single).await?;
        }
        buffer.drain(..length);
    }
}

/// Reads until `buffer` begins with a whole request, whose length it returns; `None` when the peer has closed.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<usize>, LoadError> {
    loop {
        if let Some(mut head) = Head::parse(buffer)? {
            let body = buffer.get(head.len..).unwrap_or_default();
            let taken = head.body.advance(body, |_body| ())?;
            if head.body.ended() {
                return Ok(Some(head.len + taken));
            }
        }
        if buffer.len() > MAX_REQUEST {
            return Err(HttpError::Excess.into());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct StreamRequest {
    pace: Pace,
    include_usage: bool,
}

impl StreamRequest {
    /// What `request` asks to be streamed; `None` when it asks for a single answer. Spaces in the JSON are not looked
    /// for: the load generator writes none, and a proxy has no reason to add any.
    fn find(request: &[u8]) -> Option<Self> {
        memmem::find(request, br#""stream":true"#)?;
        let include_usage = memmem::find(request, br#""include_usage":true"#).is_some();
        let pace = memmem::find(request, b"pace=").and_then(|at| request.get(at + 5..)).and_then(parse_pace);
        Some(Self { pace: pace.unwrap_or(DEFAULT_PACE), include_usage })
    }
}

fn parse_pace(text: &[u8]) -> Option<Pace> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'x')?;
    let (chunks, pause_ms) = str::from_utf8(text.get(..end)?).ok()?.split_once('x')?;
    Some(Pace { chunks: chunks.parse().ok()?, pause_ms: pause_ms.parse().ok()? })
}

async fn stream_answer(stream: &mut TcpStream, request: StreamRequest) -> Result<(), LoadError> {
    let StreamRequest { pace, include_usage } = request;
    let mut opening = STREAM_HEAD.as_bytes().to_vec();
    push_chunk(&mut opening, &event(PROMPT_FILTER_EVENT));
    push_chunk(&mut opening, &event(ROLE_EVENT));
    stream.write_all(&opening).await?;
    let start = Instant::now();
    let mut wire = Vec::with_capacity(512);
    let mut due = start;
    for _ in 0..pace.chunks {
        due += Duration::from_millis(pace.pause_ms);
        sleep_until(due).await;
        wire.clear();
        push_chunk(&mut wire, &chunk(monotonic_ns()));
        stream.write_all(&wire).await?;
    }
    wire.clear();
    push_chunk(&mut wire, &event(STOP_EVENT));
    if include_usage {
        push_chunk(&mut wire, &event(USAGE_EVENT));
    }
    push_chunk(&mut wire, &event("[DONE]"));
    wire.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&wire).await?;
    Ok(())
}

fn push_chunk(wire: &mut Vec<u8>, data: &[u8]) {
    wire.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    wire.extend_from_slice(data);
    wire.extend_from_slice(b"\r\n");
}

/// The event of one chunk of content, stamped with `now_ns`.
pub fn chunk(now_ns: u64) -> Vec<u8> {
    event(&format!("{CHUNK_BEFORE}{STAMP}{now_ns:0STAMP_DIGITS$}{CHUNK_AFTER}"))
}

fn event(data: &str) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

/// The stamp in `event`, in nanoseconds of the monotonic clock; `None` when it is not a chunk of content.
pub fn stamp(event: &[u8]) -> Option<u64> {
    let at = memmem::find(event, STAMP.as_bytes())? + STAMP.len();
    str::from_utf8(event.get(at..at + STAMP_DIGITS)?).ok()?.parse().ok()
}

fn single_answer() -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ncontent-type: application/json\r\n{AZURE_HEADERS}\r\n{SINGLE_BODY}",
        length = SINGLE_BODY.len(),
    )
    .into_bytes()
}

const BUFFER: usize = 4 * 1024;
const MAX_REQUEST: usize = 1024 * 1024;
const DEFAULT_PACE: Pace = Pace { chunks: 50, pause_ms: 20 };

const STAMP: &str = r#""delta":{"content":"@"#;
const STAMP_DIGITS: usize = 20;

/// The headers that Azure adds to every answer of a chat deployment.
const AZURE_HEADERS: &str = "\
    apim-request-id: 5a1a7b5e-6f0b-4f86-9a53-6f1a1d4c8f27\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    x-content-type-options: nosniff\r\n\
    x-ms-region: East US 2\r\n\
    x-ratelimit-remaining-requests: 99999\r\n\
    x-ratelimit-limit-requests: 100000\r\n\
    x-ratelimit-remaining-tokens: 9999990\r\n\
    x-ratelimit-limit-tokens: 10000000\r\n\
    azureml-model-session: v20260301-1-164873210\r\n\
    x-ms-rai-invoked: true\r\n\
    x-request-id: 0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d\r\n\
    x-ms-deployment-name: chat\r\n\
    date: Tue, 24 Nov 2026 12:00:00 GMT\r\n";

const SINGLE_BODY: &str = r#"{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"}},"finish_reason":"stop","index":0,"logprobs":null,"message":{"content":"Paris.","refusal":null,"role":"assistant"}}],"created":1795521600,"id":"chatcmpl-Bq3TzXk9yqYh2W8c5nV1LrD7","model":"gpt-4o-mini-2024-07-18","object":"chat.completion","system_fingerprint":"fp_efad92c60b","usage":{"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens":31,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":34}}"#;

const STREAM_HEAD: &str = "\
    HTTP/1.1 200 OK\r\n\
    transfer-encoding: chunked\r\n\
    content-type: text/event-stream; charset=utf-8\r\n\
    apim-request-id: 5a1a7b5e-6f0b-4f86-9a53-6f1a1d4c8f27\r\n\
    x-ms-region: East US 2\r\n\
    x-request-id: 0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d\r\n\
    x-ms-deployment-name: chat\r\n\
    date: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n";

const PROMPT_FILTER_EVENT: &str = r#"{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}"#;
const ROLE_EVENT: &str = r#"{"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,"role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],"created":1795521600,"id":"chatcmpl-Bq3TzXk9yqYh2W8c5nV1LrD7","model":"gpt-4o-mini-2024-07-18","object":"chat.completion.chunk","system_fingerprint":"fp_efad92c60b"}"#;
const CHUNK_BEFORE: &str = r#"{"choices":[{"content_filter_results":{},"#;
const CHUNK_AFTER: &str = r#""},"finish_reason":null,"index":0,"logprobs":null}],"created":1795521600,"id":"chatcmpl-Bq3TzXk9yqYh2W8c5nV1LrD7","model":"gpt-4o-mini-2024-07-18","object":"chat.completion.chunk","system_fingerprint":"fp_efad92c60b"}"#;
const STOP_EVENT: &str = r#"{"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop","index":0,"logprobs":null}],"created":1795521600,"id":"chatcmpl-Bq3TzXk9yqYh2W8c5nV1LrD7","model":"gpt-4o-mini-2024-07-18","object":"chat.completion.chunk","system_fingerprint":"fp_efad92c60b"}"#;
const USAGE_EVENT: &str = r#"{"choices":[],"created":1795521600,"id":"chatcmpl-Bq3TzXk9yqYh2W8c5nV1LrD7","model":"gpt-4o-mini-2024-07-18","object":"chat.completion.chunk","system_fingerprint":"fp_efad92c60b","usage":{"completion_tokens":50,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens":31,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":81}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_chunk() {
        assert_eq!(stamp(&chunk(123_456_789)), Some(123_456_789));
        assert_eq!(stamp(ROLE_EVENT.as_bytes()), None);
    }

    #[test]
    fn the_pace_is_read_from_the_prompt() {
        let request = StreamRequest::find(br#"{"content":"a story. pace=300x500"}],"stream":true}"#).unwrap();
        assert_eq!((request.pace.chunks, request.pace.pause_ms), (300, 500));
        assert!(!request.include_usage);
        assert!(StreamRequest::find(br#"{"content":"a story"}"#).is_none());
    }

    #[test]
    fn canned_bodies_are_json() {
        for event in [PROMPT_FILTER_EVENT, ROLE_EVENT, STOP_EVENT, USAGE_EVENT] {
            assert!(serde_json::from_str::<serde_json::Value>(event).unwrap().is_object());
        }
        let single: serde_json::Value = serde_json::from_str(SINGLE_BODY).unwrap();
        assert_eq!(single["usage"]["total_tokens"], 34);
    }
}
