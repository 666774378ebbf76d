//! Bad input: nothing panics, nothing stays held, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{
    Client, Config, Protocol, RawConnection, Scene, ScriptedUpstream, Streaming, chat, post, user_says,
    wait_until,
};
use gateway_tests::simulator::{Behaviour, Options, Simulator};
use http::Request;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const IMPATIENT: &str =
    "[listen]\nheader_timeout = \"400ms\"\nhandshake_timeout = \"400ms\"\nmax_body_bytes = 100000\n";

/// A request's head, with `more` header lines.
fn head(scene: &Scene, more: &str) -> String {
    let key = &scene.acme.primary;
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\napi-key: {key}\r\ncontent-type: application/json\r\n{more}\r\n"
    )
}

async fn raw(scene: &Scene) -> RawConnection {
    scene.gateway.connect_raw(&[b"http/1.1"]).await.unwrap()
}

/// What the gateway answers to bytes, until it closes.
async fn answer_to(scene: &Scene, bytes: &str) -> String {
    let mut connection = raw(scene).await;
    connection.write(bytes.as_bytes()).await.unwrap();
    connection.read_to_end().await.unwrap()
}

const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

#[tokio::test]
async fn what_is_no_tls_is_closed() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    for garbage in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff], b"\0"]
    {
        let mut tcp = TcpStream::connect(scene.gateway.address()).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // An alert, a reset, or for the start of a record the handshake timeout.
        drop(tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut answer)).await.unwrap());
        assert!(answer.len() < 64, "{answer:?}");
    }
    // One that says nothing at all, and one that stops in the middle of a handshake.
    let mut silent = TcpStream::connect(scene.gateway.address()).await.unwrap();
    let mut started = TcpStream::connect(scene.gateway.address()).await.unwrap();
    started.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    for stalled in [&mut silent, &mut started] {
        assert_eq!(stalled.read(&mut [0]).await.unwrap_or(0), 0, "closed by the gateway");
    }
    let handshakes = async |result| {
        scene.gateway.metric("gateway_tls_handshakes_total", &[("result", result)]).await.unwrap()
    };
    assert!(handshakes("failed").await >= 2.0);
    assert!(handshakes("timeout").await >= 2.0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn headers_that_dribble_and_bodies_that_stop_are_given_up() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let mut connection = raw(&scene).await;
    let mut dribbled = true;
    for byte in head(&scene, "").bytes() {
        if connection.write(&[byte]).await.is_err() {
            dribbled = false;
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(
        !dribbled || connection.read_to_end().await.unwrap().is_empty(),
        "closed before the head was whole"
    );
    for more in ["content-length: 500\r\n", "transfer-encoding: chunked\r\n"] {
        let start = if more.starts_with('c') { "{\"messages\":" } else { "c\r\n{\"messages\":\r\n" };
        let answer = answer_to(&scene, &(head(&scene, more) + start)).await;
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
    for more in ["content-length: 10000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut connection = raw(&scene).await;
        connection.write(head(&scene, more).as_bytes()).await.unwrap();
        if more.starts_with('t') {
            connection.write(b"2710\r\n").await.unwrap();
        }
        let answer = drip(&mut connection, &endless, Duration::from_millis(20)).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    }
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
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_slow_body_that_keeps_coming_is_read() {
    let limits = "[listen]\nheader_timeout = \"1s\"\nmin_body_bytes_per_second = 1\n";
    let scene = Scene::start(limits).await.unwrap();
    let mut connection = raw(&scene).await;
    let body = format!("{BODY}{}", " ".repeat(20));
    connection.write(head(&scene, &format!("content-length: {}\r\n", body.len())).as_bytes()).await.unwrap();
    // Longer on the whole than any pause may be.
    let answer = drip(&mut connection, &body, Duration::from_millis(20)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_refusal_does_not_start_the_clock_of_the_next_headers() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    for _ in 0..3 {
        let reply = client.send(chat("chat", "wrong", &user_says("hi")).unwrap()).await.unwrap();
        assert_eq!(reply.status, 401);
        // Longer than headers may take, shorter than a connection may be idle.
        sleep(Duration::from_millis(700)).await;
    }
    let reply = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn heads_are_bounded() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let mut many = String::new();
    for number in 0..10_000 {
        write!(many, "x-{number}: 1\r\n").unwrap();
    }
    let huge = format!("x-huge: {}\r\n", "a".repeat(1 << 20));
    for more in [&many, &huge] {
        let mut connection = raw(&scene).await;
        // The gateway may close before all of it is sent.
        drop(connection.write((head(&scene, more) + BODY).as_bytes()).await);
        let answer = connection.read_to_end().await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let long = format!("POST {CHAT}&x={} HTTP/1.1\r\nhost: gateway\r\n\r\n", "a".repeat(1 << 20));
    let mut connection = raw(&scene).await;
    drop(connection.write(long.as_bytes()).await);
    let answer = connection.read_to_end().await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let mut request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    request.headers_mut().insert("x-huge", "a".repeat(1 << 20).parse().unwrap());
    let mut client = scene.gateway.connect(Protocol::Http2).await.unwrap();
    assert!(client.send(request).await.map_or(true, |reply| reply.status == 431));
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn bodies_are_bounded_however_they_are_framed() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let answer = answer_to(&scene, &head(&scene, "content-length: 100001\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    let chunk = format!("2710\r\n{}\r\n", " ".repeat(10_000));
    let mut connection = raw(&scene).await;
    drop(
        connection
            .write((head(&scene, "transfer-encoding: chunked\r\n") + &chunk.repeat(11)).as_bytes())
            .await,
    );
    let answer = connection.read_to_end().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    *request.body_mut() = Bytes::from(vec![b' '; 100_001]);
    let reply = scene.gateway.connect(Protocol::Http2).await.unwrap().send(request).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (413, Some("body_too_large")));
    // A length beyond any number.
    let answer = answer_to(&scene, &head(&scene, "content-length: 99999999999999999999999\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn chunks_that_lie_are_refused() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let chunked = head(&scene, "transfer-encoding: chunked\r\n");
    let extension = format!("1;{}\r\n", "a".repeat(100_000));
    for body in [
        "zz\r\n",
        "-1\r\n{",
        "ffffffffffffffffff\r\n{",
        "1\r\n{}\r\n0\r\n\r\n",
        "0x1\r\n{\r\n",
        " 1\r\n{\r\n",
        &extension,
    ] {
        let mut connection = raw(&scene).await;
        drop(connection.write((chunked.clone() + body).as_bytes()).await);
        let answer = connection.read_to_end().await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{body:.20}: {answer}");
    }
    // Many chunks of one byte are a body like any other.
    let mut body = String::new();
    for byte in BODY.chars() {
        write!(body, "1;x=y\r\n{byte}\r\n").unwrap();
    }
    let mut connection = raw(&scene).await;
    connection.write((chunked + &body + "0\r\nx-trailer: 1\r\n\r\n").as_bytes()).await.unwrap();
    let answer = connection.read_until("\r\n\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(scene.azure.requests().pop().unwrap().body, BODY.replacen('{', "{\"max_tokens\":128000,", 1));
    assert_eq!(scene.azure.requests().len(), 1);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn no_request_is_smuggled_inside_another() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let inner = head(&scene, "x-smuggled: yes\r\ncontent-length: 2\r\n") + "{}";
    let length = BODY.len();
    for (more, body) in [
        ("content-length: 5\r\ncontent-length: 45\r\n".to_owned(), BODY),
        ("content-length: 5, 45\r\n".to_owned(), BODY),
        ("content-length: +45\r\n".to_owned(), BODY),
        ("content-length: 0x2d\r\n".to_owned(), BODY),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: identity\r\n".to_owned(), BODY),
        ("transfer-encoding: xchunked\r\n".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding : chunked\r\n".to_owned(), "0\r\n\r\n"),
        (format!("content-length: {length}\r\n x: folded\r\n"), BODY),
        (format!("x: 1\r\n\tfolded\r\ncontent-length: {length}\r\n"), BODY),
        (format!("x\0: 1\r\ncontent-length: {length}\r\n"), BODY),
        (format!("x: 1\r2\r\ncontent-length: {length}\r\n"), BODY),
    ] {
        let answer = answer_to(&scene, &(head(&scene, &more) + body + &inner)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{more:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{more:?}: {answer}");
    }
    assert_eq!(scene.azure.requests().len(), 0);
    // With both, chunked wins (RFC 9112, 6.3), and what it frames goes upstream in a frame of the gateway's own.
    let mut connection = raw(&scene).await;
    let both = head(&scene, "content-length: 4\r\ntransfer-encoding: chunked\r\n");
    connection.write(format!("{both}{length:x}\r\n{BODY}\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let answer = connection.read_until("\r\n\r\n").await.unwrap();
    if answer.starts_with("HTTP/1.1 200 ") {
        let sent = scene.azure.requests().pop().unwrap();
        assert_eq!(sent.header("content-length"), Some(&*sent.body.len().to_string()));
        assert_eq!(sent.header("transfer-encoding"), None);
        assert!(sent.body.ends_with(&BODY.as_bytes()[1..]));
    } else {
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(scene.azure.requests().iter().all(|request| !request.contains("x-smuggled")));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn bodies_that_are_not_plain_text_are_refused() {
    let scene = Scene::start(IMPATIENT).await.unwrap();
    let request = |body: Bytes| {
        let request = Request::post(CHAT).header(CONTENT_TYPE, "application/json");
        request.header("api-key", &scene.acme.primary).body(body).unwrap()
    };
    for encoding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
        let mut compressed = request(Bytes::from_static(b"\x1f\x8b\x08\0"));
        compressed.headers_mut().insert(CONTENT_ENCODING, encoding.parse().unwrap());
        let reply = scene.gateway.call(compressed).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_deref()),
            (400, Some("invalid_request")),
            "{encoding}"
        );
    }
    for body in [
        &b"{\"messages\":\"\xff\"}"[..],
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"messages\":\x00}",
        b"{\"messages\":[]",
        &[b'['; 90_000],
        &b"{\"a\":".repeat(18_000),
    ] {
        let reply = scene.gateway.call(request(Bytes::copy_from_slice(body))).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_deref()),
            (400, Some("invalid_request")),
            "{body:.20?}"
        );
    }
    assert_eq!(scene.azure.requests().len(), 0);
    // Well-formed but absurd: whatever the answer is, it is one.
    for body in [
        format!("{{\"messages\":{}{}}}", "[".repeat(40_000), "]".repeat(40_000)),
        json!({"messages": [{"role": "user", "content": "a".repeat(90_000)}]}).to_string(),
        json!({"messages": [{"role": "user", "content": " ".repeat(90_000)}]}).to_string(),
        json!({"messages": [{"role": "user", "content": "漢".repeat(29_000)}]}).to_string(),
        json!({"messages": [], "max_tokens": u64::MAX, "n": u64::MAX}).to_string(),
        json!({"messages": vec![0; 40_000]}).to_string(),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}).to_string(),
    ] {
        scene.gateway.call(request(Bytes::from(body))).await.unwrap();
        scene.at_rest().await.unwrap();
    }
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn rapid_resets_cost_the_one_who_sends_them() {
    let scene = Scene::start("").await.unwrap();
    scene.azure.behave_for(
        "instruct",
        Behaviour { first_byte_delay: Duration::from_hours(1), ..Behaviour::default() },
    );
    let stream = scene.gateway.connect_raw(&[b"h2"]).await.unwrap().into_inner();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sent = 0_u32;
    for _ in 0..5000 {
        let request = Request::post("https://gateway/openai/deployments/instruct/completions?api-version=1")
            .header("api-key", &scene.acme.primary)
            .body(())
            .unwrap();
        let Ok(()) = poll_fn(|cx| sender.poll_ready(cx)).await else { break };
        let Ok((_, mut body)) = sender.send_request(request, false) else { break };
        if body.send_data(Bytes::from_static(br#"{"prompt":"hi"}"#), true).is_err() {
            break;
        }
        body.send_reset(h2::Reason::CANCEL);
        sent += 1;
        // So that some are far enough to be calls.
        if sent.is_multiple_of(50) {
            tokio::task::yield_now().await;
        }
    }
    scene.unharmed().await.unwrap();
    connection.abort();
    scene.unharmed().await.unwrap();
    wait_until("upstream has none of them open", async || scene.azure.totals("instruct").open() == 0)
        .await
        .unwrap();
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

/// A scene whose deployment `instruct` is served by another upstream.
async fn before(upstream: &ScriptedUpstream, stream_idle_timeout: &str, piece: &str) -> Scene {
    let azure = Simulator::start(Options::default()).unwrap();
    let backends = format!(
        "[deployments.instruct]\nbackends = [\"endless\"]\n[[backends]]\nname = \"endless\"\nendpoint = \"{0}\"\n\
         stream_idle_timeout = \"{stream_idle_timeout}\"\n[[backends]]\nname = \"azure\"\nendpoint = \"{1}\"\n[deployments.chat]\nbackends = [\"azure\"]\n\
         [tiers.default]\nceiling = \"soft\"\ntokens_per_minute = 4000000000\n{piece}",
        upstream.endpoint(),
        azure.endpoint()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    scene
}

/// A stream of it, of which the first chunk was read.
async fn begun(scene: &Scene, protocol: Protocol) -> (Client, Streaming) {
    let mut client = scene.gateway.connect(protocol).await.unwrap();
    let path = "/openai/deployments/instruct/completions?api-version=1";
    let request = post(path, &scene.acme.primary, &json!({"prompt": "hi", "stream": true})).unwrap();
    let mut streaming = client.stream(request).await.unwrap();
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
    let scene = before(&upstream, "60s", "[listen]\nidle_timeout = \"1s\"\n").await;
    let silent = begun(&scene, Protocol::Http1).await;
    // Its connection takes nothing for as long as one may be idle.
    scene.at_rest().await.unwrap();
    drop(silent);
    scene.unharmed().await.unwrap();
    // On HTTP/2 the connection may be well and one stream of it stuck.
    let scene = before(&upstream, "1s", "").await;
    let silent = begun(&scene, Protocol::Http2).await;
    scene.at_rest().await.unwrap();
    drop(silent);
    let stalled = [("tenant", "acme"), ("reason", "caller_stalled")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &stalled).await.unwrap(), 1.0);
    scene.unharmed().await.unwrap();
}
