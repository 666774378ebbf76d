//! Long bodies, which cost more to read than others: they are bounded, count as calls, and are in nobody's way.

use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{Protocol, Reply, Scene, chat, user_says};
use http::Request;

use super::memory::futures_of;
use super::{BODY, answer_to, head, raw};

/// A chat call with a body that need not be JSON.
fn with_body(key: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = chat("chat", key, &user_says("hi")).unwrap();
    *request.body_mut() = body.into();
    request
}

async fn send(scene: &Scene, key: &str, body: impl Into<Bytes>) -> Reply {
    scene.gateway.call(with_body(key, body)).await.unwrap()
}

/// Bodies of a megabyte and more that are all structure.
fn structures() -> [(&'static str, String); 5] {
    let list = |element: &str, times: usize| format!(r#"{{"tools":[{}]}}"#, vec![element; times].join(","));
    [
        ("250000 fields", list(r#"{"a":1}"#, 300_000)),
        ("1000000 fields and elements", list("{}", 1_100_000)),
        ("1000000 fields and elements", list("1", 1_100_000)),
        ("250000 fields", format!("{{{}}}", vec![r#""model":1"#; 300_000].join(","))),
        ("128 deep", format!(r#"{{"tools":{}{}}}"#, "[".repeat(600_000), "]".repeat(600_000))),
    ]
}

#[tokio::test]
async fn what_is_all_structure_is_refused_and_says_what_was_too_much() {
    let scene = Scene::start("").await.unwrap();
    for (what, body) in structures() {
        let reply = send(&scene, &scene.acme.primary, body).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (400, Some("invalid_request")));
        assert!(reply.text().unwrap().contains(what), "{what}: {:?}", reply.text());
    }
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_neighbour_is_served_while_anothers_bodies_are_read() {
    let scene = Scene::start("[tiers.default]\ntokens_per_minute = 20000\n").await.unwrap();
    let [(_, fields), (_, elements), ..] = structures();
    let bodies = [
        fields,
        elements,
        user_says(&"a".repeat(4 << 20)).to_string(),
        user_says(&"word and word ".repeat(100_000)).to_string(),
    ];
    let mut clients = Vec::new();
    for number in 0..8 {
        let protocol = [Protocol::Http1, Protocol::Http2][number % 2];
        clients.push(scene.gateway.connect(protocol).await.unwrap());
    }
    let attack = clients.iter_mut().enumerate().map(|(number, client)| {
        let body = Bytes::from(bodies[number % bodies.len()].clone());
        let request = with_body(&scene.acme.primary, body);
        async move {
            for _ in 0..3 {
                let status = client.send(request.clone()).await.unwrap().status.as_u16();
                assert!([400, 413].contains(&status), "{status}");
            }
        }
    });
    let honest = async {
        let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
        for _ in 0..20 {
            let request =
                chat("chat", &scene.neighbour.primary, &user_says(&"word ".repeat(20_000))).unwrap();
            assert_eq!(client.send(request).await.unwrap().status, 200);
        }
    };
    let mut attack: Vec<_> = attack.map(Box::pin).collect();
    tokio::join!(futures_of(&mut attack), honest);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_request_that_was_wrong_counts_as_a_call_and_one_that_a_limit_refused_does_not() {
    let scene =
        Scene::start("[listen]\nmax_body_bytes = 200000\n[tiers.default]\ncalls_per_minute = 6\ntokens_per_minute = 1000\n")
            .await
            .unwrap();
    let key = &scene.acme.primary;
    let used = async || scene.status_of("acme").await.unwrap()["callsPerMinute"]["used"].clone();
    assert_eq!(send(&scene, key, "no json").await.status, 400);
    assert_eq!(send(&scene, key, vec![b' '; 100_000]).await.status, 400, "a long one, too");
    assert_eq!(send(&scene, key, vec![b' '; 200_001]).await.error().as_deref(), Some("body_too_large"));
    let long = user_says(&"quick brown foxes ".repeat(600)).to_string();
    assert_eq!(send(&scene, key, long).await.error().as_deref(), Some("prompt_exceeds_budget"));
    assert_eq!(used().await, 4);
    let whole = user_says(&"quick brown foxes ".repeat(200)).to_string();
    assert_eq!(send(&scene, key, whole.clone()).await.status, 200);
    assert_eq!(send(&scene, key, whole.clone()).await.error().as_deref(), Some("token_budget_exceeded"));
    assert_eq!(used().await, 5, "this one comes back when it was told to");
    assert_eq!(send(&scene, key, "[]").await.status, 400);
    for body in [whole, "no json".to_owned()] {
        let refused = send(&scene, key, body).await;
        assert_eq!((refused.status.as_u16(), refused.error().as_deref()), (429, Some("rate_limit")));
    }
    assert_eq!(used().await, 6);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn who_sends_all_of_a_body_before_it_reads_gets_its_refusal() {
    let scene = Scene::start("[listen]\nmax_body_bytes = 200000\n").await.unwrap();
    for framing in ["content-length: 8000000", "transfer-encoding: chunked"] {
        let mut connection = raw(&scene).await;
        connection.write(head(&scene, &format!("{framing}\r\n")).as_bytes()).await.unwrap();
        for number in 0..80 {
            // Calls, for a reader that took the rest of the body for more requests.
            let call = head(&scene, &format!("content-length: {}\r\n", BODY.len())) + BODY;
            let mut piece = call.repeat(100_000 / call.len());
            piece.push_str(&" ".repeat(100_000 - piece.len()));
            let piece =
                if framing.ends_with("chunked") { format!("{:x}\r\n{piece}\r\n", 100_000) } else { piece };
            connection.write(piece.as_bytes()).await.unwrap();
            if number == 2 {
                // By now it is refused.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let answer = connection.read_to_end().await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
        assert_eq!((answer.matches("HTTP/1.1").count(), scene.azure.requests().len()), (1, 0), "{framing}");
    }
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn who_has_no_calls_left_is_told_so_before_the_body_comes() {
    let scene = Scene::start("[tiers.default]\ncalls_per_minute = 1\n").await.unwrap();
    assert_eq!(send(&scene, &scene.acme.primary, user_says("hi").to_string()).await.status, 200);
    // All that was announced never comes.
    let mut connection = raw(&scene).await;
    connection.write(head(&scene, "content-length: 10000000\r\n").as_bytes()).await.unwrap();
    let answer = connection.read_until("rate_limit").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let answer = answer_to(
        &scene,
        &head(&scene, "expect: 100-continue\r\ncontent-length: 10\r\nconnection: close\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "not asked for: {answer}");
    scene.unharmed().await.unwrap();
}
