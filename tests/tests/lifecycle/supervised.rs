//! What becomes of a panic: in a standing part it ends the process, with a message; in a call it ends that call alone.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway_tests::harness::{
    Client, Config, Log, Protocol, Scene, ScriptedUpstream, Site, chat, user_says, wait_until,
};
use gateway_tests::simulator::{Behaviour, Options, Simulator};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use super::{PROTOCOLS, begun, streamed};

/// Names what is to panic next, to a gateway that a debug build made; a release has no such switch.
struct Faults(PathBuf);

impl Faults {
    /// Each part panics once, when it comes by and is the first of those that are left.
    fn cause(&self, parts: &[&str]) {
        let lines: String = parts.iter().map(|part| format!("{part}\n")).collect();
        // In one step: a part that comes by between two writes would see half of it.
        let draft = self.0.with_extension("new");
        fs::write(&draft, lines).unwrap();
        fs::rename(draft, &self.0).unwrap();
    }

    fn are_over(&self) -> bool {
        fs::read_to_string(&self.0).unwrap().is_empty()
    }
}

async fn scene(piece: &str) -> (Scene, Faults) {
    scene_of(Simulator::start(Options::default()).unwrap(), piece).await
}

async fn scene_of(azure: Simulator, piece: &str) -> (Scene, Faults) {
    let config = Config::for_simulator(&azure).unwrap().with("[tiers.free]\n").unwrap().with(piece).unwrap();
    let mut site = Site::new(&azure, &config).unwrap();
    // Beside the folder that is watched.
    let faults = site.path().join("tls/faults");
    site.set_environment("AOAI_GATEWAY_TEST_FAULTS", &faults);
    let scene = Scene::in_site(azure, site).unwrap();
    scene.ready().await.unwrap();
    (scene, Faults(faults))
}

fn failures(log: &Log) -> Vec<Value> {
    let failed = |event: &Value| event["message"] == "a standing part of the gateway has failed";
    log.events().into_iter().filter(failed).collect()
}

async fn call(client: &mut Client, key: &str) -> anyhow::Result<u16> {
    Ok(client.send(chat("chat", key, &user_says("hi"))?).await?.status.as_u16())
}

/// The process's end, after which its store can be read.
async fn ended(scene: Scene) -> (Site, Option<i32>) {
    let Scene { gateway, azure, .. } = scene;
    let (site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
    drop(azure);
    (site, status.code())
}

#[tokio::test]
async fn a_standing_part_that_panics_ends_the_process_and_is_named() {
    for part in ["reloader", "admin", "store", "store-disk", "log", "worker-0"] {
        let (scene, faults) = scene("[listen]\nworkers = 1\n").await;
        let log = scene.gateway.log().clone();
        let hi = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
        assert_eq!(scene.gateway.call(hi.clone()).await.unwrap().status, 200);
        if part == "store" {
            // What it takes twice a second; a last time it cannot.
            assert_eq!(scene.gateway.admin_page("/usage").await.unwrap().status, 200);
        }
        faults.cause(&[part]);
        match part {
            "reloader" => scene.gateway.signal(Signal::HUP).unwrap(),
            // Whether or not this one is answered still.
            "admin" => drop(scene.gateway.admin_page("/healthz").await),
            // They have something to write.
            "store" | "store-disk" | "log" => drop(scene.gateway.call(hi).await),
            // It comes by in any case.
            _ => {}
        }
        let (site, code) = ended(scene).await;
        assert_eq!(code, Some(1), "{part}");
        let failures = failures(&log);
        assert_eq!(failures.len(), 1, "{part}: {failures:?}");
        assert_eq!(failures[0]["part"], part);
        assert!(failures[0]["problem"].as_str().unwrap().contains(&format!("wants {part} to panic")));
        let panics: Vec<_> =
            log.events().into_iter().filter(|event| event["message"] == "panicked").collect();
        assert_eq!(panics.len(), 1, "{part}: {panics:?}");
        assert_eq!(panics[0]["where"], "background");
        assert!(panics[0]["location"].as_str().unwrap().contains("fault.rs"));
        // What was used is in the store, whatever part of it has panicked.
        let used = site.run(&["usage", "--since", "1d", "--format", "json"]).unwrap();
        let told = String::from_utf8(used.stdout).unwrap();
        assert!(told.contains("acme"), "{part}: {told}{}", String::from_utf8_lossy(&used.stderr));
    }
}

#[tokio::test]
async fn calls_that_are_open_when_a_part_fails_come_to_their_end() {
    let (scene, faults) = scene("").await;
    scene.azure.behave_once(Behaviour {
        tokens: 200,
        chunk_delay: Duration::from_millis(10),
        ..Behaviour::default()
    });
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let mut open = client.stream(chat("chat", &scene.acme.primary, &streamed()).unwrap()).await.unwrap();
    open.next().await.unwrap().unwrap();
    faults.cause(&["reloader"]);
    scene.gateway.signal(Signal::HUP).unwrap();
    let page = async |path| scene.gateway.admin_page(path).await.unwrap().status.as_u16();
    wait_until("it is not well", async || page("/healthz").await == 503).await.unwrap();
    assert_eq!(page("/readyz").await, 503);
    assert!(
        open.rest_text().await.unwrap().ends_with("data: [DONE]\n\n"),
        "the stream has come to its own end"
    );
    assert_eq!(ended(scene).await.1, Some(1));
}

#[tokio::test]
async fn a_call_that_panics_ends_alone() {
    let (scene, faults) = scene("[listen]\nworkers = 1\n").await;
    let key = &scene.acme.primary;
    let panics =
        async |scope| scene.gateway.metric("gateway_panics_total", &[("where", scope)]).await.unwrap();
    assert_eq!(panics("call").await, 0.0);
    let mut expected = 0.0;
    for protocol in PROTOCOLS {
        let mut other = scene.gateway.connect(protocol).await.unwrap();
        assert_eq!(call(&mut other, key).await.unwrap(), 200);
        let mut unlucky = scene.gateway.connect(protocol).await.unwrap();
        faults.cause(&["call"]);
        call(&mut unlucky, key).await.unwrap_err();
        // In the middle of a stream, and once more while that unwinds: two panics at once end a process.
        let (unlucky, mut stream) = begun(&scene, protocol, key).await;
        faults.cause(&["meter", "meter"]);
        stream.rest().await.unwrap_err();
        faults.cause(&[]);
        drop((unlucky, stream));
        expected += 2.0;
        scene.at_rest().await.unwrap();
        assert_eq!(panics("call").await, expected);
        assert_eq!(call(&mut other, key).await.unwrap(), 200, "its connection is of the same worker");
    }
    for scope in ["connection", "background", "other"] {
        assert_eq!(panics(scope).await, 0.0, "{scope}");
    }
    let broken = [("tenant", "acme"), ("reason", "internal_error")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &broken).await.unwrap(), 2.0);
    assert!(failures(scene.gateway.log()).is_empty());
    assert_eq!(scene.gateway.terminate().unwrap().1.code(), Some(0));
}

/// An upstream that streams without an end or a pause, and counts what is taken of it.
fn endless(taken: &Arc<AtomicU64>) -> ScriptedUpstream {
    let taken = Arc::clone(taken);
    ScriptedUpstream::start(move |stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a\"}}]}\n\n".repeat(100);
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        loop {
            stream.write_all(chunk.as_bytes())?;
            taken.fetch_add(1, Ordering::Relaxed);
        }
    })
    .unwrap()
}

#[tokio::test]
async fn a_stalled_stream_whose_end_panics_takes_no_other_with_it() {
    let taken = Arc::default();
    let upstream = endless(&taken);
    let azure = Simulator::start(Options::default()).unwrap();
    let piece = format!(
        "[listen]\nworkers = 1\n[tiers.default]\nceiling = \"soft\"\ntokens_per_minute = 4000000000\n\
         [deployments.odd]\nmodel = \"gpt-4o-mini\"\nbackends = [\"odd\"]\n\
         [[backends]]\nname = \"simulator\"\nendpoint = \"{}\"\n\
         [[backends]]\nname = \"odd\"\npriority = 2\nendpoint = \"http://{}\"\n",
        azure.endpoint(),
        upstream.address()
    );
    let (scene, faults) = scene_of(azure, &piece).await;
    let mut other = scene.gateway.connect(Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut other, &scene.neighbour.primary).await.unwrap(), 200);
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let mut silent = client.stream(chat("odd", &scene.acme.primary, &streamed()).unwrap()).await.unwrap();
    silent.next().await.unwrap().unwrap();
    let mut last = u64::MAX;
    wait_until("nobody reads, and upstream is held up", async || {
        let now = taken.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
        std::mem::replace(&mut last, now) == now
    })
    .await
    .unwrap();
    // Its worker ends a stream whose caller does not read; the last of it is counted then.
    faults.cause(&["meter"]);
    scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
    wait_until("the end has panicked", async || faults.are_over()).await.unwrap();
    scene.at_rest().await.unwrap();
    assert_eq!(call(&mut other, &scene.neighbour.primary).await.unwrap(), 200);
    let panics = scene.gateway.metric("gateway_panics_total", &[("where", "call")]).await.unwrap();
    assert_eq!(panics, 1.0);
    assert!(failures(scene.gateway.log()).is_empty());
    drop(silent);
}
