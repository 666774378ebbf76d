//! Callers who send slowly, or stop; callers who read slowly, or stop.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{
    Client, DEADLINE, Protocol, RawConnection, Scene, ScriptedUpstream, Streaming, chat, user_says,
    wait_until,
};
use http::Request;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{BODY, CHAT, answer_to, head, raw};

/// Short, and long enough for whoever sends without a pause.
const IMPATIENT: &str = "[listen]\nheader_timeout = \"5s\"\n";

#[tokio::test]
async fn headers_that_dribble_and_bodies_that_stop_are_given_up() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let dribble = async {
        let mut connection = raw(&scene).await;
        for byte in head(&scene, "").bytes() {
            if connection.write(&[byte]).await.is_err() {
                return String::new();
            }
            sleep(Duration::from_millis(100)).await;
        }
        connection.read_to_end().await.unwrap()
    };
    let (with_length, chunked) =
        (head(&scene, "content-length: 500\r\n"), head(&scene, "transfer-encoding: chunked\r\n"));
    let (with_length, chunked) = (with_length + "{\"messages\":", chunked + "c\r\n{\"messages\":\r\n");
    let (dribbled, with_length, chunked) =
        tokio::join!(dribble, answer_to(&scene, &with_length), answer_to(&scene, &chunked));
    assert!(dribbled.is_empty(), "closed before the head was whole");
    for answer in [with_length, chunked] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("body_timeout"), "{answer}");
    }
    // One that hangs up in the middle of its body gets nothing, and leaves nothing.
    let mut connection = raw(&scene).await;
    connection.write((head(&scene, "content-length: 500\r\n") + "{").as_bytes()).await.unwrap();
    drop(connection);
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

/// Sends a body byte by byte, until it is whole or the gateway has answered.
async fn drip(connection: &mut RawConnection, body: &str, pause: Duration) -> String {
    for byte in body.bytes() {
        tokio::select! {
            biased;
            answer = connection.read() => return String::from_utf8(answer.unwrap()).unwrap(),
            () = sleep(pause) => {}
        }
        connection.write(&[byte]).await.unwrap();
    }
    connection.read_until("\r\n\r\n").await.unwrap()
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let endless = " ".repeat(10_000);
    let over_http1 = async |more: &str| {
        let mut connection = raw(&scene).await;
        connection.write(head(&scene, more).as_bytes()).await.unwrap();
        if more.starts_with('t') {
            connection.write(b"2710\r\n").await.unwrap();
        }
        let answer = drip(&mut connection, &endless, Duration::from_millis(20)).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    };
    let over_http2 = async {
        let stream = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::post(format!("https://gateway{CHAT}")).header("api-key", &scene.acme.primary);
        let mut sender = sender.ready().await.unwrap();
        let (mut answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let status = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer.unwrap().status(),
                () = sleep(Duration::from_millis(20)) => body.send_data(Bytes::from_static(b" "), false).unwrap(),
            }
        };
        assert_eq!(status, 408);
        connection.abort();
    };
    tokio::join!(
        over_http1("content-length: 10000\r\n"),
        over_http1("transfer-encoding: chunked\r\n"),
        over_http2
    );
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_slow_body_that_keeps_coming_is_read() {
    let limits = "[listen]\nheader_timeout = \"5s\"\nmin_body_bytes_per_second = 1\n";
    let scene = Scene::start(limits).await.unwrap();
    let mut connection = raw(&scene).await;
    let body = format!("{BODY}{}", " ".repeat(20));
    connection.write(head(&scene, &format!("content-length: {}\r\n", body.len())).as_bytes()).await.unwrap();
    // Longer on the whole than any pause may be.
    let answer = drip(&mut connection, &body, Duration::from_millis(100)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_refusal_does_not_start_the_clock_of_the_next_headers() {
    let scene = Scene::start("[listen]\nheader_timeout = \"3s\"\n").await.unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    for _ in 0..3 {
        let reply = client.send(chat("chat", "wrong", &user_says("hi")).unwrap()).await.unwrap();
        assert_eq!(reply.status, 401);
        // Longer than headers may take, shorter than a connection may be idle.
        sleep(Duration::from_millis(3500)).await;
    }
    let reply = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
}

/// What an HTTP/2 connection begins with: the preface, empty settings, and the head of a call that does not end yet.
const HTTP2_HEAD_BEGINS: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x83";
/// And more of it, which does not end it either: a continuation with `:scheme: https`.
const HTTP2_HEAD_GOES_ON: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01\x87";

#[tokio::test]
async fn an_http2_head_that_does_not_end_is_given_up() {
    let scene = Scene::start("[listen]\nidle_timeout = \"5s\"\n").await.unwrap();
    // One stops there, and one goes on for ever.
    let mut stopped = scene.gateway.connect_raw(&[b"h2"]).await.unwrap();
    stopped.write(HTTP2_HEAD_BEGINS).await.unwrap();
    let mut endless = scene.gateway.connect_raw(&[b"h2"]).await.unwrap();
    endless.write(HTTP2_HEAD_BEGINS).await.unwrap();
    let goes_on = async { while endless.write(HTTP2_HEAD_GOES_ON).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, goes_on).await.unwrap();
    stopped.read_to_end().await.unwrap();
    scene.unharmed().await.unwrap();
    assert_eq!(scene.azure.requests().len(), 2, "those of the neighbour");
}

#[tokio::test]
async fn a_body_that_ends_too_early_or_too_late_is_no_call() {
    let scene = Scene::start("").await.unwrap();
    let connection = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
    let (sender, connection) = h2::client::handshake(connection).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for length in [BODY.len() - 1, BODY.len() + 1] {
        let request = Request::post(format!("https://gateway{CHAT}"))
            .header("api-key", &scene.acme.primary)
            .header("content-length", length);
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(BODY.as_bytes()), true).unwrap();
        // Reset, or told.
        assert!(answer.await.map_or(true, |answer| answer.status() == 400), "{length}");
    }
    connection.abort();
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn those_who_stall_keep_nobody_waiting() {
    let scene = Scene::start("").await.unwrap();
    let mut tcp = Vec::new();
    let mut tls = Vec::new();
    for _ in 0..50 {
        let silent = TcpStream::connect(scene.gateway.address()).await.unwrap();
        let mut handshake = TcpStream::connect(scene.gateway.address()).await.unwrap();
        handshake.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        tcp.extend([silent, handshake]);
        for begun in ["", "POST / HTTP/1.1\r\nhost:", &(head(&scene, "content-length: 500\r\n") + "{")] {
            let mut connection = raw(&scene).await;
            connection.write(begun.as_bytes()).await.unwrap();
            tls.push(connection);
        }
        let mut connection = scene.gateway.connect_raw(&[b"h2"]).await.unwrap();
        connection.write(HTTP2_HEAD_BEGINS).await.unwrap();
        tls.push(connection);
    }
    // All of them are open: within the 10 s that they are given, others are served.
    scene.unharmed().await.unwrap();
    drop((tcp, tls));
    assert_eq!(scene.azure.requests().len(), 2, "those of the neighbour");
    scene.unharmed().await.unwrap();
}

/// An upstream whose stream never ends, and which counts the bytes that were taken from it.
fn endless(taken: &Arc<AtomicU64>) -> ScriptedUpstream {
    let taken = Arc::clone(taken);
    ScriptedUpstream::start(move |stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        let event = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
            " a".repeat(2000)
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        loop {
            stream.write_all(chunk.as_bytes())?;
            taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    })
    .unwrap()
}

/// A scene before it, without limits that would end a stream.
async fn before(upstream: &ScriptedUpstream, stream_idle_timeout: &str, piece: &str) -> Scene {
    let backend = format!("stream_idle_timeout = \"{stream_idle_timeout}\"\n");
    let tier = "[tiers.default]\nceiling = \"soft\"\ntokens_per_minute = 4000000000\n";
    Scene::beside(upstream.address(), &backend, &format!("{tier}{piece}")).await.unwrap()
}

/// A stream of it, of which the first chunk was read.
async fn begun(scene: &Scene, protocol: Protocol) -> (Client, Streaming) {
    let mut client = scene.gateway.connect(protocol).await.unwrap();
    let mut body = user_says("hi");
    body["stream"] = true.into();
    let mut streaming = client.stream(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
    streaming.next().await.unwrap().unwrap();
    (client, streaming)
}

#[tokio::test]
async fn a_caller_that_stops_reading_stops_upstream_and_takes_no_memory() {
    let taken = Arc::default();
    let upstream = endless(&taken);
    let scene = before(&upstream, "60s", "").await;
    scene.unharmed().await.unwrap();
    let before = scene.gateway.resident_bytes().unwrap();
    let mut open = Vec::new();
    for number in 0..16 {
        // Nothing more is read of any.
        open.push(begun(&scene, [Protocol::Http1, Protocol::Http2][number % 2]).await);
    }
    // Upstream has stopped when nothing was taken for a while.
    let mut last = u64::MAX;
    wait_until("upstream is held up", async || {
        let now = taken.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
        std::mem::replace(&mut last, now) == now
    })
    .await
    .unwrap();
    let grown = scene.gateway.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 48 << 20, "{} KiB for 16 streams that nobody reads", grown >> 10);
    let reply =
        scene.gateway.call(chat("chat", &scene.neighbour.primary, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
    // Whoever does not read is suspended like anyone else.
    scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
    scene.at_rest().await.unwrap();
    drop(open);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_never_reads_is_given_up() {
    let taken = Arc::default();
    let upstream = endless(&taken);
    let scene = before(&upstream, "60s", "[listen]\nidle_timeout = \"5s\"\n").await;
    let silent = begun(&scene, Protocol::Http1).await;
    // Its connection takes nothing for as long as one may be idle.
    scene.at_rest().await.unwrap();
    drop(silent);
    scene.unharmed().await.unwrap();
    // On HTTP/2 the connection may be well and one stream of it stuck.
    let scene = before(&upstream, "5s", "").await;
    let silent = begun(&scene, Protocol::Http2).await;
    scene.at_rest().await.unwrap();
    drop(silent);
    let stalled = [("tenant", "acme"), ("reason", "caller_stalled")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &stalled).await.unwrap(), 1.0);
    scene.unharmed().await.unwrap();
}

/// An upstream with a JSON answer of so many bytes, and the usage at its end.
fn large(length: usize) -> ScriptedUpstream {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    let answer = format!(r#"{{"object":"list","data":"{}",{usage}"#, "a".repeat(length));
    ScriptedUpstream::start(move |stream| {
        let length = answer.len();
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
                .as_bytes(),
        )?;
        stream.write_all(answer.as_bytes())
    })
    .unwrap()
}

/// Longer than an answer is held back, so that the caller reads what upstream sent long ago.
const LARGE: usize = 1_500_000;
/// What the slow callers take at a time, every [`PAUSE`]: the first megabyte takes them twice `stream_idle_timeout`.
const MOUTHFUL: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(80);

#[tokio::test]
async fn who_reads_slowly_and_steadily_over_http1_gets_all_of_a_large_answer() {
    let upstream = large(LARGE);
    let scene = before(&upstream, "5s", "").await;
    // Small segments and a small window, so that the kernels on the way hold no megabyte.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.set_tcp_mss(1000).unwrap();
    socket.connect(&scene.gateway.address().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let tcp = TcpStream::from_std(socket.into()).unwrap();
    let authority = scene.gateway.site().authority();
    let connection = RawConnection::over(tcp, authority, &[b"http/1.1"]).await.unwrap();
    let mut stream = connection.into_inner();
    let request = head(&scene, &format!("content-length: {}\r\n", BODY.len())).replacen("/chat/", "/odd/", 1);
    stream.write_all((request + BODY).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut mouthful = [0; MOUTHFUL];
    while answer.len() < LARGE {
        let read = stream.read(&mut mouthful).await.unwrap();
        assert!(read > 0, "cut after {} bytes", answer.len());
        answer.extend_from_slice(&mouthful[..read]);
        sleep(PAUSE).await;
    }
    drop(stream);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn who_reads_slowly_and_steadily_over_http2_gets_all_of_a_large_answer() {
    let upstream = large(LARGE);
    let scene = before(&upstream, "5s", "").await;
    let stream = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let path = CHAT.replacen("/chat/", "/odd/", 1);
    let request = Request::post(format!("https://gateway{path}")).header("api-key", &scene.acme.primary);
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(BODY.as_bytes()), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    let mut length = 0;
    while let Some(data) = answer.data().await {
        let mut unread = data.unwrap().len();
        length += unread;
        while unread > 0 {
            let mouthful = unread.min(MOUTHFUL);
            answer.flow_control().release_capacity(mouthful).unwrap();
            unread -= mouthful;
            sleep(PAUSE).await;
        }
    }
    assert!(length > LARGE, "cut after {length} bytes");
    connection.abort();
    scene.unharmed().await.unwrap();
}
