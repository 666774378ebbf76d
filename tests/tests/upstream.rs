//! Upstreams that do what Azure should not: what reaches the caller of it, and what the tenant pays.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gateway_tests::harness::{Protocol, Scene, ScriptedUpstream, chat, user_says};
use serde_json::Value;

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn headers_that_speak_of_upstreams_connection_stay_behind() {
    let upstream = ScriptedUpstream::start(|stream| {
        let body = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: keep-alive, X-Hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\n\r\n{body}",
            body.len()
        )
    })
    .unwrap();
    let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let request = chat("odd", &scene.acme.primary, &user_says("hi")).unwrap();
        let reply = client.send(request).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("x-kept")), (200, Some("1")));
        for name in ["x-hop", "keep-alive", "connection"] {
            assert_eq!(reply.header(name), None, "{name}");
        }
    }
    scene.unharmed().await.unwrap();
}

/// Bytes behind an answer, at once or a moment later, are nobody's: not the next caller's either.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "each of the upstream's connections is a thread of its own")]
async fn what_comes_behind_an_answer_reaches_no_other_call() {
    let whole = |content: &str| {
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":"{content}"}}}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = |content: &str| {
        let event = format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\ndata: [DONE]\n\n"
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
        format!("{head}\r\n{:x}\r\n{event}\r\n0\r\n\r\n", event.len())
    };
    for (stream, answer, another) in [
        (false, whole("mine"), whole("another's")),
        (true, chunked("mine"), chunked("another's")),
        (false, whole("mine"), "HTTP/1.1 500 another's\r\n\r\n".to_owned()),
        (false, whole("mine"), "another's".to_owned()),
    ] {
        for pause in [None, Some(Duration::from_millis(20))] {
            let (answer, another) = (answer.clone(), another.clone());
            let upstream = ScriptedUpstream::start(move |stream| match pause {
                None => stream.write_all((answer.clone() + &another).as_bytes()),
                Some(pause) => {
                    stream.write_all(answer.as_bytes())?;
                    std::thread::sleep(pause);
                    stream.write_all(another.as_bytes())
                }
            })
            .unwrap();
            let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
            let mut body = user_says("hi");
            body["stream"] = stream.into();
            for key in [&scene.acme.primary, &scene.neighbour.primary, &scene.acme.primary] {
                let reply = scene.gateway.call(chat("odd", key, &body).unwrap()).await.unwrap();
                let text = reply.text().unwrap();
                assert!(reply.status == 200 && text.contains("mine") && !text.contains("another"), "{text}");
                tokio::time::sleep(pause.unwrap_or_default() * 2).await;
            }
            scene.unharmed().await.unwrap();
        }
    }
}

/// Makes a call whose answer may have 77 tokens, and gives its status and what the tenant paid for it: prompt, output.
async fn paid_for(scene: &Scene, mut body: Value) -> (u16, f64, f64) {
    let tokens = async |name| scene.gateway.metric(name, &[("tenant", "acme")]).await.unwrap();
    let (input, output) = ("aoai_prompt_tokens_total", "aoai_completion_tokens_total");
    let before = (tokens(input).await, tokens(output).await);
    body["max_tokens"] = 77.into();
    let reply = scene.gateway.call(chat("odd", &scene.acme.primary, &body).unwrap()).await.unwrap();
    scene.at_rest().await.unwrap();
    (reply.status.as_u16(), tokens(input).await - before.0, tokens(output).await - before.1)
}

#[tokio::test]
async fn a_prompt_that_upstream_may_have_read_is_paid_for() {
    for (head, status, pays_prompt, output) in [
        // It closes with all of the request read: it may have written all that was held, before its head or behind it.
        ("", 502, true, 77.0),
        ("HTTP/1.1 200", 502, true, 77.0),
        ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{", 502, true, 77.0),
        // Its errors are free.
        ("HTTP/1.1 500 X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", 500, false, 0.0),
        ("HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\n{", 502, false, 0.0),
    ] {
        let upstream = ScriptedUpstream::start(move |stream| {
            stream.write_all(head.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Both)
        })
        .unwrap();
        let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
        let request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
        let usage = scene.gateway.call(request).await.unwrap().json().unwrap()["usage"].take();
        let prompt = if pays_prompt { usage["prompt_tokens"].as_f64().unwrap() } else { 0.0 };
        for stream in [false, true] {
            let mut body = user_says("hi");
            body["stream"] = stream.into();
            let paid = paid_for(&scene, body).await;
            // Without a count of it, an answer in one piece leaves a short prompt at its upper bound.
            let expected = if output > 0.0 { paid.1.max(prompt) } else { prompt };
            assert_eq!(paid, (status, expected, output), "{head:?}");
        }
        scene.unharmed().await.unwrap();
    }
}

#[tokio::test]
async fn an_upstream_that_stays_silent_may_have_written_all() {
    // Until the gateway hangs up.
    let silence = |stream: &mut TcpStream| std::io::copy(stream, &mut std::io::sink()).map(drop);
    let upstream = ScriptedUpstream::start(silence).unwrap();
    let scene = Scene::beside(upstream.address(), "timeout = \"300ms\"\n", "").await.unwrap();
    let (status, prompt, output) = paid_for(&scene, user_says("hi")).await;
    assert_eq!((status, prompt > 0.0, output), (504, true, 77.0));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_request_that_upstream_cannot_have_read_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // What was not read makes the close a reset.
            drop(stream.read(&mut [0; 100]));
        }
    });
    let scene = Scene::beside(address, "", "").await.unwrap();
    let mut body = user_says("hi");
    // More than the sockets in between can hold, and no part of the prompt that would have to be tokenised.
    body["metadata"] = "x".repeat(15 << 20).into();
    assert_eq!(paid_for(&scene, body).await, (502, 0.0, 0.0));
    scene.unharmed().await.unwrap();
}
