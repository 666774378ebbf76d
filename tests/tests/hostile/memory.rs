//! Callers who fill the memory: with bodies that do not end, and with answers that they do not take.

use std::any::Any;
use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use gateway_tests::harness::{DEADLINE, Scene, ScriptedUpstream, chat, user_says, wait_until};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BODY, CHAT, head, raw};

/// The length of a body that is announced.
const BODY_LENGTH: usize = 15 << 20;
/// How much of a body is sent before its caller looks for an answer.
const PIECE: usize = 256 << 10;
const MIB: f64 = 1024.0 * 1024.0;

/// Sends all of a body but its last piece, and gives the connection. Nothing where it was refused, in an answer or by
/// closing.
async fn send_unfinished(scene: &Scene) -> Option<Box<dyn Any>> {
    let (mut read, mut write) = tokio::io::split(raw(scene).await.into_inner());
    write.write_all(head(scene, &format!("content-length: {BODY_LENGTH}\r\n")).as_bytes()).await.ok()?;
    let piece = vec![b' '; PIECE];
    let mut answer = [0; 16];
    for _ in 1..BODY_LENGTH / PIECE {
        tokio::select! {
            biased;
            read = read.read(&mut answer) => {
                assert!(read.is_err() || answer.starts_with(b"\0") || answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
                return None;
            }
            sent = write.write_all(&piece) => sent.ok()?,
        }
    }
    Some(Box::new((read, write)))
}

#[tokio::test]
async fn unfinished_bodies_have_a_bound_and_leave_room_for_others() {
    let patient = "[listen]\nheader_timeout = \"120s\"\nhandshake_timeout = \"120s\"\n";
    let scene = Scene::start(patient).await.unwrap();
    scene.unharmed().await.unwrap();
    let before = scene.gateway.resident_bytes().unwrap();
    let mut sending: Vec<_> = (0..90).map(|_| Box::pin(send_unfinished(&scene))).collect();
    let mut open = Vec::new();
    let all = async {
        for connection in futures_of(&mut sending).await {
            open.extend(connection);
        }
    };
    tokio::time::timeout(4 * DEADLINE, all).await.unwrap();
    let refused = [("reason", "overloaded"), ("tenant", "acme"), ("status", "503")];
    wait_until("no more than eight are left: half of 256 MiB", async || {
        scene.gateway.metric("gateway_requests_total", &refused).await.unwrap() >= 82.0
    })
    .await
    .unwrap();
    let buffered = scene.gateway.metric("gateway_buffered_bytes", &[]).await.unwrap();
    assert!(buffered > 15.0 * MIB && buffered <= 128.0 * MIB, "{buffered}");
    let grown = scene.gateway.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 320 << 20, "{} MiB", grown >> 20);
    // Whoever sends no more than a part of what is left finds room for it.
    let mut large = chat("chat", &scene.neighbour.primary, &user_says("hi")).unwrap();
    *large.body_mut() = Bytes::from(format!("{BODY}{}", " ".repeat(4 << 20)));
    let reply = scene.gateway.call(large).await.unwrap();
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    scene.unharmed().await.unwrap();
    drop(open);
    wait_until("the memory is given back", async || {
        scene.gateway.metric("gateway_buffered_bytes", &[]).await.unwrap() == 0.0
    })
    .await
    .unwrap();
}

/// What comes of several futures that run at the same time.
pub(super) async fn futures_of<T>(futures: &mut [Pin<Box<impl Future<Output = T>>>]) -> Vec<T> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut ready = true;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => ready = false,
                }
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_refusal_for_want_of_memory_says_when_to_come_back() {
    let scene =
        Scene::start("[listen]\nmax_body_bytes = 1000000\nmax_buffered_bytes = 2000000\n").await.unwrap();
    let mut first = raw(&scene).await;
    let unfinished = head(&scene, "content-length: 900000\r\n") + &" ".repeat(899_999);
    first.write(unfinished.as_bytes()).await.unwrap();
    wait_until("the body has come", async || {
        scene.gateway.metric("gateway_buffered_bytes", &[]).await.unwrap() >= 899_999.0
    })
    .await
    .unwrap();
    // It is refused before it needs the 120,000 bytes, and what comes after that is little enough to be read.
    let mut second = raw(&scene).await;
    let more = head(&scene, "content-length: 120000\r\n") + &" ".repeat(80_000);
    second.write(more.as_bytes()).await.unwrap();
    let answer = second.read_to_end().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"overloaded\""), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("retry-after-ms: 1000\r\n"), "{answer}");
    let refused = [("reason", "overloaded"), ("tenant", "acme"), ("status", "503")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &refused).await.unwrap(), 1.0);
    scene.unharmed().await.unwrap();
}

/// An upstream whose every answer is one JSON document, a little shorter than the longest that is held back.
fn embeddings() -> ScriptedUpstream {
    let usage = r#""usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let answer = format!(r#"{{"object":"list","data":"{}",{usage}"#, "a".repeat(900_000));
    ScriptedUpstream::start(move |stream| {
        let length = answer.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(answer.as_bytes())
    })
    .unwrap()
}

const STREAMS: usize = 64;

#[tokio::test]
async fn answers_that_are_not_taken_are_bounded_and_given_up() {
    let upstream = embeddings();
    let piece = format!(
        "[listen]\nidle_timeout = \"15s\"\nmax_buffered_bytes = 33554432\n\
         [tiers.default]\nceiling = \"soft\"\ntokens_per_minute = 4000000000\nconcurrent_calls = {STREAMS}\n"
    );
    let backend = "stream_idle_timeout = \"15s\"\n";
    let scene = Scene::beside(upstream.address(), backend, &piece).await.unwrap();
    scene.unharmed().await.unwrap();
    let before = scene.gateway.resident_bytes().unwrap();
    let stream = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
    // Not a byte of any answer may be sent.
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let path = CHAT.replacen("/chat/", "/odd/", 1);
    let mut answers = Vec::new();
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..STREAMS {
        let request = Request::post(format!("https://gateway{path}")).header("api-key", &scene.acme.primary);
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(BODY.as_bytes()), true).unwrap();
        answers.push(answer);
        sender = sender.ready().await.unwrap();
    }
    let mut bodies = Vec::new();
    let mut exact = 0;
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        exact += usize::from(answer.headers().contains_key("x-tokens-consumed"));
        bodies.push(answer.into_body());
    }
    let buffered = scene.gateway.metric("gateway_buffered_bytes", &[]).await.unwrap();
    assert!(buffered > 8.0 * MIB && buffered <= 16.0 * MIB, "{buffered}");
    // Perhaps none: where all come at once, each has a part of the room.
    assert!(exact <= 18, "{exact} were held back whole, the others passed on as they come");
    let grown = scene.gateway.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 48 << 20, "{} MiB", grown >> 20);
    // The slots of their calls are taken.
    let reply =
        scene.gateway.call(chat("odd", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.error().as_deref(), Some("concurrency_limit"));
    // Until they have been given up: then all is given back, and their callers are told.
    scene.at_rest().await.unwrap();
    for body in &mut bodies {
        let told = tokio::time::timeout(DEADLINE, body.data()).await.unwrap();
        assert!(told.is_some_and(|data| data.is_err()), "a reset");
    }
    assert_eq!(scene.gateway.metric("gateway_buffered_bytes", &[]).await.unwrap(), 0.0);
    let stalled = [("tenant", "acme"), ("reason", "caller_stalled")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &stalled).await.unwrap(), STREAMS as f64);
    connection.abort();
    scene.unharmed().await.unwrap();
}

/// A window that has room for all but the end of an answer is no way to keep the end for ever.
#[tokio::test]
async fn an_answer_of_which_a_byte_is_taken_is_given_up_too() {
    let scene = Scene::start("[listen]\nidle_timeout = \"5s\"\n").await.unwrap();
    let stream = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(1).handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::post(format!("https://gateway{CHAT}")).header("api-key", &scene.acme.primary);
    let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(BODY.as_bytes()), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap().len(), 1);
    let told = tokio::time::timeout(DEADLINE, answer.data()).await.unwrap();
    assert!(told.is_some_and(|data| data.is_err()), "a reset");
    let stalled = [("tenant", "acme"), ("reason", "caller_stalled")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &stalled).await.unwrap(), 1.0);
    connection.abort();
    scene.unharmed().await.unwrap();
}
