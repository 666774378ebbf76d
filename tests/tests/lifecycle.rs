//! From start to end: readiness, identity, reload, drain; and no secret anywhere.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "lifecycle/reloaded.rs"]
mod reloaded;
#[path = "lifecycle/revoked.rs"]
mod revoked;
#[path = "lifecycle/stopped.rs"]
mod stopped;
#[path = "lifecycle/supervised.rs"]
mod supervised;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::certificate::Authority;
use gateway_tests::harness::{Client, Config, Protocol, Scene, Site, Streaming, chat, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault, IdentityFault, Options, Simulator};
use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn streamed() -> Value {
    let mut body = user_says("hi");
    body["stream"] = true.into();
    body
}

/// A stream that goes on for ever, of which the first chunk was read.
async fn begun(scene: &Scene, protocol: Protocol, key: &str) -> (Client, Streaming) {
    scene.azure.behave_once(Behaviour {
        tokens: 1_000_000,
        chunk_delay: Duration::from_millis(5),
        ..Behaviour::default()
    });
    let mut client = scene.gateway.connect(protocol).await.unwrap();
    let mut streaming = client.stream(chat("chat", key, &streamed()).unwrap()).await.unwrap();
    assert_eq!(streaming.status, 200);
    streaming.next().await.unwrap().unwrap();
    (client, streaming)
}

async fn status_with(scene: &Scene, key: &str) -> StatusCode {
    scene.gateway.call(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap().status
}

async fn generation(scene: &Scene) -> f64 {
    scene.gateway.metric("gateway_config_generation", &[]).await.unwrap()
}

#[tokio::test]
async fn it_is_ready_once_it_has_a_token() {
    let azure = Simulator::start(Options::default()).unwrap();
    azure.set_identity_fault(Some(IdentityFault::Status(StatusCode::INTERNAL_SERVER_ERROR)));
    let config = Config::for_simulator(&azure).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    assert_eq!(scene.gateway.admin_page("/healthz").await.unwrap().status, 200);
    let reply = scene.gateway.admin_page("/readyz").await.unwrap();
    assert_eq!(reply.status, 503);
    assert!(reply.text().unwrap().starts_with("no identity token yet: "), "{:?}", reply.body);
    assert_eq!(status_with(&scene, &scene.acme.primary).await, 503);
    scene.azure.set_identity_fault(None);
    scene.ready().await.unwrap();
    assert_eq!(status_with(&scene, &scene.acme.primary).await, 200);
    assert!(scene.gateway.metric("gateway_identity_token_expiry_seconds", &[]).await.unwrap() > 1e9);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_no_call_notices() {
    let lifetime = Duration::from_secs(12);
    let scene = Scene::with(Options { token_lifetime: lifetime, ..Options::default() }, "").await.unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let mut used = std::collections::BTreeSet::new();
    while used.len() < 4 {
        let reply = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        used.insert(scene.azure.requests().pop().unwrap().header("authorization").unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One that is slow to come keeps nobody waiting: the one in use still holds.
    scene.azure.set_token_lifetime(Duration::from_secs(60));
    scene.azure.set_identity_fault(Some(IdentityFault::Slow(Duration::from_secs(1))));
    let asked = scene.azure.tokens_asked();
    wait_until("the next is asked for", async || scene.azure.tokens_asked() > asked).await.unwrap();
    let reply = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_workload_identity_signs_in() {
    let azure = Simulator::start(Options { tls: true, ..Options::default() }).unwrap();
    let config = Config::for_simulator(&azure)
        .unwrap()
        .with("[identity]\nsource = \"workload\"\n[tiers.free]\n")
        .unwrap();
    let mut site = Site::new(&azure, &config).unwrap();
    site.use_workload_identity(&azure).unwrap();
    let scene = Scene::in_site(azure, site).unwrap();
    scene.ready().await.unwrap();
    assert_eq!(status_with(&scene, &scene.acme.primary).await, 200);
    let asked = scene.azure.identity_requests().pop().unwrap();
    assert!(asked.target.ends_with("/oauth2/v2.0/token") && asked.contains("a.service.account"));
    let token = scene.azure.tokens().pop().unwrap();
    assert!(!scene.gateway.log().contains(&token) && !scene.gateway.log().contains("a.service.account"));
}

#[tokio::test]
async fn tenants_come_change_and_go_while_it_runs() {
    let scene = Scene::start("").await.unwrap();
    let site = scene.gateway.site();
    let late = site.add_tenant("late", None).unwrap();
    wait_until("an added tenant may call", async || status_with(&scene, &late.primary).await == 200)
        .await
        .unwrap();
    let rotated = site.rotate_key("late", "primary").unwrap();
    wait_until("a new key works", async || status_with(&scene, &rotated).await == 200).await.unwrap();
    assert_eq!(status_with(&scene, &late.primary).await, 401, "and the old one does not");
    assert_eq!(status_with(&scene, &late.secondary).await, 200);
    site.run(&["tenant", "suspend", "late"]).unwrap();
    wait_until("a suspended tenant is refused", async || status_with(&scene, &rotated).await == 401)
        .await
        .unwrap();
    site.run(&["tenant", "resume", "late"]).unwrap();
    wait_until("a resumed one is not", async || status_with(&scene, &rotated).await == 200).await.unwrap();
    let used = scene.status_of("late").await.unwrap()["tokensPerMinute"]["used"].as_u64().unwrap();
    assert!(used > 0, "what was used before is not forgotten");
    site.run(&["tenant", "remove", "late"]).unwrap();
    wait_until("a removed one is refused", async || status_with(&scene, &rotated).await == 401)
        .await
        .unwrap();
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_changed_configuration_is_used_and_a_bad_one_is_refused() {
    let scene = Scene::start("").await.unwrap();
    let base = Config::for_simulator(&scene.azure).unwrap().with("[tiers.free]\n").unwrap();
    let before = generation(&scene).await;
    let (_client, mut open) = begun(&scene, Protocol::Http1, &scene.acme.primary).await;
    scene
        .gateway
        .site()
        .configure(&base.clone().with("[deployments.extra]\nmodel = \"gpt-4o\"\n").unwrap())
        .unwrap();
    wait_until("the change is used", async || generation(&scene).await > before).await.unwrap();
    let extra = chat("extra", &scene.acme.primary, &user_says("hi")).unwrap();
    assert_eq!(scene.gateway.call(extra.clone()).await.unwrap().status, 200);
    open.next().await.unwrap().unwrap();
    let now = generation(&scene).await;
    for (bad, named) in [
        ("[tiers.default]\ncalls_per_minutes = 1\n", "calls_per_minutes"),
        ("[backends]\n", "backends"),
        ("[listen]\ncertificate = \"nowhere.crt\"\n", "nowhere.crt"),
    ] {
        let refused = scene.gateway.metric("gateway_config_rejected_total", &[]).await.unwrap();
        scene.gateway.site().configure(&base.clone().with(bad).unwrap()).unwrap();
        wait_until("it is refused", async || {
            scene.gateway.metric("gateway_config_rejected_total", &[]).await.unwrap() > refused
        })
        .await
        .unwrap();
        assert_eq!(generation(&scene).await, now);
        assert_eq!(scene.gateway.call(extra.clone()).await.unwrap().status, 200, "the old one stays");
        assert_eq!(scene.gateway.metric("gateway_config_refused", &[]).await.unwrap(), 1.0);
        let status = scene.gateway.admin_page("/status").await.unwrap().json().unwrap();
        let refused = &status["config"]["refused"];
        assert!(refused["since"].as_str().unwrap().ends_with('Z'), "{refused}");
        assert!(refused["problem"].as_str().unwrap().contains(named), "{refused}");
    }
    wait_until("the log says what is wrong", async || scene.gateway.log().contains("calls_per_minutes"))
        .await
        .unwrap();
    fs::write(scene.gateway.site().path().join("gateway.toml"), "garbage").unwrap();
    scene.gateway.signal(Signal::HUP).unwrap();
    open.next().await.unwrap().unwrap();
    scene.gateway.site().configure(&base).unwrap();
    wait_until("a good one is used again", async || generation(&scene).await > now).await.unwrap();
    assert_eq!(scene.gateway.metric("gateway_config_refused", &[]).await.unwrap(), 0.0);
    let status = scene.gateway.admin_page("/status").await.unwrap().json().unwrap();
    assert_eq!(status["config"]["refused"], Value::Null);
    assert!(status["certificate"]["expiresAt"].as_str().unwrap().ends_with('Z'), "{}", status["certificate"]);
    assert_eq!(status["certificate"]["warning"], Value::Null);
    assert_eq!(status["config"]["generation"].as_f64().unwrap(), generation(&scene).await);
    assert_eq!(scene.gateway.call(extra).await.unwrap().status, 404);
    open.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections() {
    let scene = Scene::start("").await.unwrap();
    let (_client, mut open) = begun(&scene, Protocol::Http2, &scene.acme.primary).await;
    let renewed = Authority::new().unwrap();
    scene.gateway.site().write_certificate(&renewed).unwrap();
    wait_until("the new certificate is served", async || {
        Client::connect(scene.gateway.address(), &renewed, Protocol::Http1).await.is_ok()
    })
    .await
    .unwrap();
    assert!(scene.gateway.connect(Protocol::Http1).await.is_err(), "the old one is gone");
    open.next().await.unwrap().unwrap();
    // Half a pair is refused, and the pair in use stays. The one before may have been seen half written.
    let rejected = async || scene.gateway.metric("gateway_config_rejected_total", &[]).await.unwrap();
    let before = rejected().await;
    fs::write(scene.gateway.site().path().join("tls/tls.key"), Authority::new().unwrap().private_key_pem())
        .unwrap();
    wait_until("it is refused", async || rejected().await > before).await.unwrap();
    Client::connect(scene.gateway.address(), &renewed, Protocol::Http1).await.unwrap();
    open.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn at_sigterm_open_calls_finish_and_no_others_begin() {
    let scene = Scene::start("").await.unwrap();
    let mut open = Vec::new();
    for protocol in PROTOCOLS {
        scene.azure.behave_once(Behaviour {
            tokens: 400,
            chunk_delay: Duration::from_millis(25),
            ..Behaviour::default()
        });
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let mut streaming =
            client.stream(chat("chat", &scene.acme.primary, &streamed()).unwrap()).await.unwrap();
        streaming.next().await.unwrap().unwrap();
        open.push((client, streaming));
    }
    // Idle, or with half a request: neither keeps the gateway up.
    let mut idle = scene.gateway.connect(Protocol::Http1).await.unwrap();
    idle.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    scene.gateway.signal(Signal::TERM).unwrap();
    let address = scene.gateway.address();
    wait_until("no connection is taken", async || tokio::net::TcpStream::connect(address).await.is_err())
        .await
        .unwrap();
    assert_eq!(scene.gateway.admin_page("/readyz").await.unwrap().status, 503);
    assert!(idle.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.is_err());
    for (client, streaming) in &mut open {
        let text = streaming.rest_text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "the stream has come to its own end");
        let more = client.send(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await;
        assert!(more.is_err(), "a drained connection takes no call");
    }
    let Scene { gateway, azure, .. } = scene;
    let (_site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(azure.totals("chat").abandoned, 0);
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut() {
    let scene = Scene::start("[listen]\ndrain_timeout = \"300ms\"\n").await.unwrap();
    let (_client, mut open) = begun(&scene, Protocol::Http1, &scene.acme.primary).await;
    let Scene { gateway, azure, .. } = scene;
    gateway.signal(Signal::TERM).unwrap();
    while open.next().await.is_ok_and(|chunk| chunk.is_some()) {}
    let (_site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    wait_until("upstream is cancelled", async || azure.totals("chat").open() == 0).await.unwrap();
}

#[tokio::test]
async fn no_secret_shows_up_anywhere() {
    let scene = Scene::start("[log]\nlevel = \"trace\"\n").await.unwrap();
    let Scene { acme, neighbour, .. } = &scene;
    let prompt = "a prompt that nobody may log";
    let mut answers = Vec::new();
    for fault in
        [None, Some(Fault::ServerError), Some(Fault::Reset { after_chunks: 0 }), Some(Fault::ContentFilter)]
    {
        for protocol in PROTOCOLS {
            for stream in [true, false] {
                scene.azure.behave(Behaviour { fault, ..Behaviour::default() });
                let mut body = user_says(prompt);
                body["stream"] = stream.into();
                let mut client = scene.gateway.connect(protocol).await.unwrap();
                let mut request = chat("chat", &acme.primary, &body).unwrap();
                let query = format!("api-version=1&subscription-key={}", acme.secondary);
                *request.uri_mut() =
                    format!("/openai/deployments/chat/chat/completions?{query}").parse().unwrap();
                answers.push(client.send(request).await.unwrap());
            }
        }
    }
    // Keys where none belongs: in a path, as a deployment, as a model, in JSON that breaks off.
    let key = acme.primary.as_str();
    for (path, body) in [
        (format!("/openai/{key}"), String::new()),
        (format!("/openai/deployments/{key}/embeddings"), "{}".to_owned()),
        ("/openai/v1/embeddings".to_owned(), format!("{{\"model\":\"{key}\"}}")),
        ("/openai/v1/embeddings".to_owned(), format!("{{\"model\":\"embed\",\"{key}")),
    ] {
        let request = http::Request::post(path).header("api-key", key).body(Bytes::from(body)).unwrap();
        answers.push(scene.gateway.call(request).await.unwrap());
    }
    scene.at_rest().await.unwrap();
    let mut secrets =
        vec![acme.primary.clone(), acme.secondary.clone(), neighbour.primary.clone(), prompt.to_owned()];
    secrets.extend(scene.azure.tokens());
    secrets.push("zero one two".to_owned());
    for page in ["/metrics", "/status", "/readyz"] {
        answers.push(scene.gateway.admin_page(page).await.unwrap());
    }
    for secret in &secrets {
        assert!(!scene.gateway.log().contains(secret), "the log holds {secret}");
        for answer in &answers {
            let is_answer = secret == "zero one two" && answer.header("x-ms-region").is_some();
            let text = format!("{:?} {:?}", answer.headers, answer.text().unwrap());
            assert!(is_answer || !text.contains(secret.as_str()), "{text} holds {secret}");
        }
    }
    let tenants = fs::read_to_string(scene.gateway.site().path().join("tenants.toml")).unwrap();
    assert!(!tenants.contains(key), "only hashes are kept");
}

#[tokio::test]
async fn a_gateway_leaves_no_core_dump() {
    let scene = Scene::start("").await.unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", scene.gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let figures: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(figures, ["0", "0"], "{core}");
}
