//! Attacks by calls: bodies that are long, odd or unfinished, and plain calls without a pause.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::attack::{Target, again};

/// A body, and the path that it is for.
#[derive(Debug, Clone)]
pub(super) struct Odd {
    path: &'static str,
    body: Bytes,
}

/// `begin`, as many pieces as fit, and `end`.
fn filled(path: &'static str, length: usize, begin: &str, piece: &str, end: &str) -> Odd {
    let pieces = (length - begin.len() - end.len()) / piece.len();
    let mut body = String::with_capacity(length);
    body.push_str(begin);
    body.push_str(&piece.repeat(pieces));
    // Lists end without a comma.
    if piece.ends_with(',') {
        body.pop();
    }
    body.push_str(end);
    Odd { path, body: Bytes::from(body) }
}

fn prompt(length: usize, piece: &str) -> Odd {
    filled(CHAT, length, r#"{"messages":[{"role":"user","content":""#, piece, r#""}]}"#)
}

pub(super) fn words(length: usize) -> Odd {
    prompt(length, "The quick brown fox jumps over the lazy dog, and then it rests. ")
}

pub(super) fn one_letter() -> Odd {
    prompt(LONGEST, "a")
}

pub(super) fn escapes() -> Odd {
    prompt(LONGEST, "\\u00e9")
}

pub(super) fn tools() -> Odd {
    filled(CHAT, LONGEST, r#"{"messages":[{"role":"user","content":"hi"}],"tools":["#, "{},", "]}")
}

pub(super) fn numbers() -> Odd {
    filled(COMPLETIONS, LONGEST, r#"{"prompt":["#, "1,", "]}")
}

pub(super) fn inputs() -> Odd {
    filled(EMBEDDINGS, LONGEST, r#"{"input":["#, "{},", "]}")
}

pub(super) fn keys() -> Odd {
    filled(CHAT, LONGEST, r#"{"messages":[{"role":"user","content":"hi"}],"metadata":{"#, r#""a":1,"#, "}}")
}

/// The same body over and over, on 8 connections.
pub(super) async fn flood(target: Target, odd: Odd) -> anyhow::Result<()> {
    again(target, 8, move |target| call_on(target, odd.clone())).await
}

/// Small calls without a pause.
pub(super) async fn calls(target: Target, callers: usize) -> anyhow::Result<()> {
    let body = Bytes::from_static(br#"{"messages":[{"role":"user","content":"hi"}]}"#);
    again(target, callers, move |target| call_on(target, Odd { path: CHAT, body: body.clone() })).await
}

async fn call_on(target: Target, odd: Odd) -> anyhow::Result<()> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(target.http1().await?)).await?;
    // It ends with its sender.
    tokio::spawn(async { drop(connection.await) });
    let request = Request::post(odd.path)
        .header("host", target.gateway.to_string())
        .header("api-key", &target.key)
        .header("content-type", "application/json")
        .body(Full::new(odd.body))?;
    loop {
        sender.ready().await?;
        target.tries(1);
        let mut answer = sender.send_request(request.clone()).await?.into_body();
        while let Some(frame) = answer.frame().await {
            frame?;
        }
    }
}

/// 90 bodies of which the end never comes.
pub(super) async fn unfinished(target: Target) -> anyhow::Result<()> {
    again(target, 90, |target| async move {
        let (mut read, mut write) = tokio::io::split(target.http1().await?);
        target.tries(1);
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\napi-key: {}\r\ncontent-length: {UNFINISHED}\r\n\r\n",
            target.key
        );
        let send = async {
            write.write_all(head.as_bytes()).await?;
            let piece = vec![b' '; PIECE];
            for _ in 1..UNFINISHED / PIECE {
                write.write_all(&piece).await?;
            }
            write.flush().await?;
            std::future::pending::<anyhow::Result<()>>().await
        };
        let mut answer = [0; 1024];
        tokio::select! {
            sent = send => sent,
            // Answered or closed, both of which end it.
            read = read.read(&mut answer) => Ok(read.map(drop)?),
        }
    })
    .await
}

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const COMPLETIONS: &str = "/openai/deployments/instruct/completions?api-version=2024-10-21";
const EMBEDDINGS: &str = "/openai/deployments/embed/embeddings?api-version=2024-10-21";
/// `listen.max_body_bytes`.
pub(super) const LONGEST: usize = 16 << 20;
const UNFINISHED: usize = 15 << 20;
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bodies_are_json_and_as_long_as_they_may_be() {
        for odd in [words(605_000), one_letter(), escapes(), tools(), numbers(), inputs(), keys()] {
            assert!(
                serde_json::from_slice::<&serde_json::value::RawValue>(&odd.body).is_ok(),
                "{}",
                odd.path
            );
            assert!(odd.body.len() <= LONGEST && odd.body.len() > 604_000, "{}", odd.body.len());
        }
    }
}
