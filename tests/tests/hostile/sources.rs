//! Sources that are one too many, without the kernel programs: each of this host's loopback addresses is one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use gateway_tests::harness::{
    Client, DEADLINE, Protocol, RawConnection, Reply, Scene, chat, connect_from, user_says, wait_until,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{BODY, CHAT, head};

const HOSTILE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// A second that nobody floods.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

/// Whoever says nothing is patiently waited for, and no source is exempt.
async fn scene(listen: &str, kernel: &str) -> Scene {
    let piece = format!(
        "[listen]\nhandshake_timeout = \"10m\"\nidle_timeout = \"10m\"\n{listen}\n[kernel]\nexempt = []\n{kernel}\n"
    );
    Scene::start(&piece).await.unwrap()
}

/// So many connections of one address, on which nothing is said.
async fn hoard(scene: &Scene, source: IpAddr, count: usize) -> Vec<TcpStream> {
    let mut hoard = Vec::new();
    for _ in 0..count {
        hoard.push(connect_from(source, scene.gateway.address()).await.unwrap());
    }
    hoard
}

async fn call(client: &mut Client, key: &str) -> Reply {
    client.send(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap()
}

async fn served(scene: &Scene, source: IpAddr) -> Client {
    let mut client = scene.gateway.connect_from(source, Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut client, &scene.neighbour.primary).await.status, 200);
    client
}

async fn shed(scene: &Scene, reason: &str) -> f64 {
    scene.gateway.metric("gateway_connections_shed_total", &[("reason", reason)]).await.unwrap()
}

async fn open(scene: &Scene) -> f64 {
    scene.gateway.metric("gateway_connections", &[]).await.unwrap()
}

const PLENTY: &str =
    "connections_per_second = 100000\nconnection_burst = 100000\nconcurrent_connections = 100000";

#[tokio::test]
async fn where_the_process_is_full_the_greediest_source_makes_room() {
    let scene = scene("max_connections = 20", PLENTY).await;
    let mut honest = served(&scene, HONEST).await;
    let _hoard = hoard(&scene, HOSTILE, 200).await;
    // One after the other, each on a connection of its own, and on the one from before.
    for _ in 0..5 {
        served(&scene, HONEST).await;
        served(&scene, NOBODY).await;
        assert_eq!(call(&mut honest, &scene.neighbour.primary).await.status, 200);
    }
    assert!(shed(&scene, "full").await >= 180.0);
    assert!(open(&scene).await <= 20.0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_source_with_as_many_connections_as_it_may_makes_room_for_its_own() {
    let scene =
        scene("", "connections_per_second = 100000\nconnection_burst = 100000\nconcurrent_connections = 10")
            .await;
    // Behind the address of the hoarder is also somebody honest.
    let mut honest = served(&scene, HOSTILE).await;
    let _hoard = hoard(&scene, HOSTILE, 100).await;
    wait_until("all but ten are closed", async || {
        shed(&scene, "concurrent").await >= 91.0 && open(&scene).await <= 10.0
    })
    .await
    .unwrap();
    served(&scene, HOSTILE).await;
    assert_eq!(call(&mut honest, &scene.neighbour.primary).await.status, 200, "what is known is kept");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_source_connects_no_faster_than_it_may() {
    let scene =
        scene("", "connections_per_second = 1\nconnection_burst = 20\nconcurrent_connections = 100000").await;
    let started = Instant::now();
    let _hoard = hoard(&scene, HOSTILE, 200).await;
    let allowed = 20.0 + 2.0 + started.elapsed().as_secs_f64();
    wait_until("those beyond the rate are closed", async || shed(&scene, "rate").await >= 200.0 - allowed)
        .await
        .unwrap();
    for _ in 0..10 {
        served(&scene, HONEST).await;
    }
    scene.unharmed().await.unwrap();
}

/// What an HTTP/2 connection begins with: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GOAWAY (RFC 9113, 6.8) with `ENHANCE_YOUR_CALM`, whatever the last stream.
fn is_calmed(bytes: &[u8]) -> bool {
    bytes
        .windows(17)
        .any(|frame| frame.starts_with(b"\0\0\x08\x07\0\0\0\0\0") && frame.ends_with(b"\0\0\0\x0b"))
}

/// Frames without end, until the gateway closes; whether it said why.
async fn flood(mut connection: RawConnection, frame: &[u8]) -> bool {
    connection.write(PREFACE).await.unwrap();
    let (mut read, mut write) = tokio::io::split(connection.into_inner());
    let frames = frame.repeat(100);
    let writing = tokio::spawn(async move { while write.write_all(&frames).await.is_ok() {} });
    let mut said = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut said);
    // A reset is an end too.
    drop(tokio::time::timeout(DEADLINE, reading).await.unwrap());
    writing.abort();
    is_calmed(&said)
}

#[tokio::test]
async fn control_frames_without_end_are_given_up_and_charged() {
    let frames: [(&str, &[u8]); 6] = [
        ("PING", b"\0\0\x08\x06\0\0\0\0\0abcdefgh"),
        ("SETTINGS", b"\0\0\0\x04\0\0\0\0\0"),
        ("SETTINGS with a value", b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff"),
        ("PRIORITY", b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10"),
        ("WINDOW_UPDATE", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
        ("an unknown kind", b"\0\0\x01\x2a\0\0\0\0\0x"),
    ];
    let scene = scene("", PLENTY).await;
    for (number, (what, frame)) in (10_u8..).zip(frames) {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
        let connection = scene.gateway.connect_raw_from(source, &[b"h2"]).await.unwrap();
        // Its answers may be lost to a reset, but the charge is not.
        flood(connection, frame).await;
        wait_until("it is counted", async || shed(&scene, "frames").await >= f64::from(number - 9))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut client = scene.gateway.connect_from(source, Protocol::Http1).await.unwrap();
        let reply = call(&mut client, &scene.acme.primary).await;
        assert_eq!(reply.error().as_deref(), Some("source_limit"), "{what}");
    }
    // Little enough that nothing is lost to a reset: the gateway says why it closes.
    let mut connection = scene.gateway.connect_raw_from(HOSTILE, &[b"h2"]).await.unwrap();
    connection.write(PREFACE).await.unwrap();
    let mut calmed = false;
    for _ in 0..200 {
        connection.write(&b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(10)).await.unwrap();
        let said = connection.read().await.unwrap_or_default();
        calmed |= is_calmed(&said);
        if calmed || said.is_empty() {
            break;
        }
    }
    assert!(calmed);
    served(&scene, HONEST).await;
    scene.unharmed().await.unwrap();
}

/// Where a tenant is served, another's flood is no reason to shed the address.
#[tokio::test]
async fn a_flood_of_frames_beside_a_tenant_ends_its_own_connection_only() {
    let scene = scene("", PLENTY).await;
    let mut honest = served(&scene, HOSTILE).await;
    let connection = scene.gateway.connect_raw_from(HOSTILE, &[b"h2"]).await.unwrap();
    flood(connection, b"\0\0\x08\x06\0\0\0\0\0abcdefgh").await;
    wait_until("it is counted", async || shed(&scene, "frames").await >= 1.0).await.unwrap();
    assert_eq!(call(&mut honest, &scene.neighbour.primary).await.status, 200);
    served(&scene, HOSTILE).await;
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn who_reads_a_long_stream_may_move_its_window_with_every_chunk() {
    let scene = scene("", PLENTY).await;
    let connection = scene.gateway.connect_raw_from(HONEST, &[b"h2"]).await.unwrap().into_inner();
    let (sender, connection) = h2::client::handshake(connection).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for _ in 0..20 {
        let request =
            http::Request::post(format!("https://gateway{CHAT}")).header("api-key", &scene.neighbour.primary);
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let body_bytes = r#"{"stream":true,"max_tokens":2000,"messages":[{"role":"user","content":"hi"}]}"#;
        body.send_data(bytes::Bytes::from_static(body_bytes.as_bytes()), true).unwrap();
        let mut stream = answer.await.unwrap().into_body();
        while let Some(data) = stream.data().await {
            let taken = data.unwrap().len();
            stream.flow_control().release_capacity(taken).unwrap();
        }
        sender = sender.ready().await.unwrap();
    }
    connection.abort();
    assert_eq!(shed(&scene, "frames").await, 0.0);
}

/// Wrong keys for so many calls, on one connection; how long that took.
async fn guess(scene: &Scene, protocol: Protocol, calls: usize) -> Duration {
    let client = scene.gateway.connect_from(HOSTILE, protocol).await.unwrap();
    let started = Instant::now();
    let mut guesses = tokio::task::JoinSet::new();
    match client.another() {
        None => {
            let mut client = client;
            for _ in 0..calls {
                assert_eq!(call(&mut client, "wrong").await.status, 401);
            }
        }
        Some(_) => {
            for _ in 0..calls / 20 {
                for _ in 0..20 {
                    let mut client = client.another().unwrap();
                    guesses.spawn(async move { call(&mut client, "wrong").await.status });
                }
                while let Some(status) = guesses.join_next().await {
                    assert_eq!(status.unwrap(), 401);
                }
            }
        }
    }
    started.elapsed()
}

#[tokio::test]
async fn refusals_have_a_rate_whoever_was_served_beside_them() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let scene = scene("", &format!("{PLENTY}\ncalls_per_second = 20\ncall_burst = 40")).await;
        let mut honest = served(&scene, HOSTILE).await;
        let guessing = guess(&scene, protocol, 200);
        let calling = async {
            let mut calls = 0;
            loop {
                assert_eq!(call(&mut honest, &scene.neighbour.primary).await.status, 200);
                calls += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
                if calls == 1_000 {
                    return;
                }
            }
        };
        let took = tokio::select! {
            took = guessing => took,
            () = calling => panic!("the guesses are not answered"),
        };
        // Forty at once, on HTTP/2 what was on its way, and then twenty a second.
        assert!(took > Duration::from_secs((200 - 40 - 20) / 20), "{protocol:?}: {took:?}");
        // Whoever shares the address is served, and so is whoever has found the key.
        served(&scene, HOSTILE).await;
        scene.unharmed().await.unwrap();
    }
}

#[tokio::test]
async fn refusals_of_calls_sent_ahead_have_the_same_rate() {
    let scene = scene("", &format!("{PLENTY}\ncalls_per_second = 20\ncall_burst = 40")).await;
    served(&scene, HOSTILE).await;
    let mut connection = scene.gateway.connect_raw_from(HOSTILE, &[b"http/1.1"]).await.unwrap();
    let guess = head(&scene, "content-length: 2\r\n").replace(&scene.acme.primary, "wrong") + "{}";
    let started = Instant::now();
    connection.write(guess.repeat(120).as_bytes()).await.unwrap();
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 401 ").count() < 120 {
        let more = connection.read().await.unwrap();
        assert!(!more.is_empty(), "{answers}");
        answers.push_str(&String::from_utf8(more).unwrap());
    }
    assert!(started.elapsed() > Duration::from_secs((120 - 40 - 20) / 20));
    served(&scene, HOSTILE).await;
    scene.unharmed().await.unwrap();
}

/// A connection of a balancer on [`HOSTILE`], for a client.
async fn proxied(scene: &Scene, client: &str) -> TcpStream {
    let mut tcp = connect_from(HOSTILE, scene.gateway.address()).await.unwrap();
    tcp.write_all(format!("PROXY TCP4 {client} 127.0.0.1 40000 443\r\n").as_bytes()).await.unwrap();
    tcp
}

#[tokio::test]
async fn clients_of_a_balancer_are_bounded_by_the_address_it_names() {
    let scene = scene(
        "proxy_protocol_from = [\"127.0.0.2\"]",
        "connections_per_second = 100000\nconnection_burst = 100000\nconcurrent_connections = 5",
    )
    .await;
    let mut hoard = Vec::new();
    for _ in 0..50 {
        hoard.push(proxied(&scene, "203.0.113.7").await);
    }
    wait_until("all but five are closed", async || {
        shed(&scene, "concurrent").await >= 45.0 && open(&scene).await <= 5.0
    })
    .await
    .unwrap();
    // More than five, all of the same balancer.
    let mut kept = Vec::new();
    for client in 10..20 {
        let tcp = proxied(&scene, &format!("203.0.113.{client}")).await;
        let authority = scene.gateway.site().authority();
        let mut connection = RawConnection::over(tcp, authority, &[b"http/1.1"]).await.unwrap();
        let call = head(&scene, &format!("content-length: {}\r\n", BODY.len())) + BODY;
        connection.write(call.as_bytes()).await.unwrap();
        let answer = connection.read_until("\r\n\r\n").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        kept.push(connection);
    }
    assert!(open(&scene).await >= 15.0);
    scene.unharmed().await.unwrap();
}
