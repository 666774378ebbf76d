//! Bad input: nothing panics, nothing stays held, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "hostile/long.rs"]
mod long;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/raw.rs"]
mod raw_requests;
#[path = "hostile/slow.rs"]
mod slow;
#[path = "hostile/sources.rs"]
mod sources;

use std::fmt::Write as _;
use std::future::poll_fn;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{DEADLINE, Protocol, RawConnection, Scene, chat, user_says, wait_until};
use gateway_tests::simulator::Behaviour;
use http::Request;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
const SMALL_BODIES: &str = "[listen]\nmax_body_bytes = 100000\n";

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
    // The neighbours shake hands with the same gateway, and need time for it.
    let scene = Scene::start("[listen]\nhandshake_timeout = \"5s\"\n").await.unwrap();
    // One that says nothing at all, and one that stops in the middle of a handshake.
    let mut silent = TcpStream::connect(scene.gateway.address()).await.unwrap();
    let mut started = TcpStream::connect(scene.gateway.address()).await.unwrap();
    started.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    for garbage in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xff; 4096], &[0x16, 3, 1, 0xff, 0xff], b"\0"]
    {
        let mut tcp = TcpStream::connect(scene.gateway.address()).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // An alert, a reset, or for the start of a record the handshake timeout.
        drop(tokio::time::timeout(DEADLINE, tcp.read_to_end(&mut answer)).await.unwrap());
        assert!(answer.len() < 64, "{answer:?}");
    }
    for stalled in [&mut silent, &mut started] {
        assert_eq!(stalled.read(&mut [0]).await.unwrap_or(0), 0, "closed by the gateway");
    }
    let handshakes = async |result| {
        scene.gateway.metric("gateway_tls_handshakes_total", &[("result", result)]).await.unwrap()
    };
    // A connection is closed before it is counted.
    wait_until("all of them are counted", async || {
        handshakes("failed").await >= 2.0 && handshakes("timeout").await >= 2.0
    })
    .await
    .unwrap();
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn heads_are_bounded() {
    let scene = Scene::start(SMALL_BODIES).await.unwrap();
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
    let request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    let (mut many, mut huge) = (request.clone(), request);
    for number in 0..10_000 {
        many.headers_mut().insert(HeaderName::try_from(format!("x-{number}")).unwrap(), 1.into());
    }
    huge.headers_mut().insert("x-huge", "a".repeat(1 << 20).parse().unwrap());
    for request in [many, huge] {
        let mut client = scene.gateway.connect(Protocol::Http2).await.unwrap();
        assert!(client.send(request).await.map_or(true, |reply| reply.status == 431));
    }
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn bodies_are_bounded_however_they_are_framed() {
    let scene = Scene::start(SMALL_BODIES).await.unwrap();
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
    let scene = Scene::start(SMALL_BODIES).await.unwrap();
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
    assert_eq!(scene.azure.requests().pop().unwrap().body, BODY);
    assert_eq!(scene.azure.requests().len(), 1);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn no_request_is_smuggled_inside_another() {
    let scene = Scene::start(SMALL_BODIES).await.unwrap();
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
    let scene = Scene::start(SMALL_BODIES).await.unwrap();
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

/// With the curl of Debian 12, 7.88: it loses an answer that comes with a reset before all of its request was sent.
#[tokio::test]
async fn a_refusal_is_seen_though_its_request_was_not_read() {
    let scene = Scene::start("").await.unwrap();
    let url = format!("https://{}{CHAT}", scene.gateway.address());
    let curl = move |protocol: &str, body: String| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--insecure",
            protocol,
            "--header",
            "api-key: wrong",
            "--write-out",
            "%{http_code}",
        ]);
        curl.args(["--output", "/dev/null", "--data", &body, &url]);
        let output = curl.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let seen = tokio::task::spawn_blocking(move || {
        for body in [BODY.to_owned(), format!("{BODY}{}", " ".repeat(30_000))] {
            for protocol in ["--http2", "--http1.1"] {
                for _ in 0..20 {
                    assert_eq!(curl(protocol, body.clone()), (Some(0), "401".to_owned()), "{protocol}");
                }
            }
        }
    });
    seen.await.unwrap();
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_connection_serves_on_after_a_small_body_was_refused() {
    let scene = Scene::start("").await.unwrap();
    let mut connection = raw(&scene).await;
    let length = BODY.len();
    let wrong = head(&scene, &format!("content-length: {length}\r\n")).replace(&scene.acme.primary, "wrong");
    for _ in 0..3 {
        connection.write(wrong.as_bytes()).await.unwrap();
        // The body comes by itself, as it does from callers who write head and body apart.
        tokio::time::sleep(Duration::from_millis(50)).await;
        connection.write(BODY.as_bytes()).await.unwrap();
        let answer = connection.read_until("\"}").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("connection: close"), "{answer}");
    }
    let right = head(&scene, &format!("content-length: {length}\r\n"));
    connection.write((right + BODY).as_bytes()).await.unwrap();
    assert!(connection.read_until("\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200 "));
    // Who does not send the body is answered all the same, and who waits to be asked for it is not asked.
    for more in [
        "content-length: 500\r\n",
        "content-length: 5\r\nexpect: 100-continue\r\n",
        "content-length: 5000000\r\n",
    ] {
        let mut connection = raw(&scene).await;
        let wrong = head(&scene, more).replace(&scene.acme.primary, "wrong");
        connection.write(wrong.as_bytes()).await.unwrap();
        let answer = connection.read_until("\r\n\r\n").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{more}: {answer}");
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
