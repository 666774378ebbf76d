//! What signals come to: the first ends the gateway in order, the second at once.

use std::os::unix::process::ExitStatusExt as _;

use gateway_tests::harness::{Protocol, Scene, chat, user_says, wait_until};
use gateway_tests::simulator::Behaviour;
use rustix::process::Signal;

use super::{begun, status_with};

#[tokio::test]
async fn a_lame_duck_is_not_ready_and_takes_calls() {
    let scene = Scene::start("[listen]\nlame_duck = \"1h\"\n").await.unwrap();
    scene.gateway.signal(Signal::TERM).unwrap();
    let ready = async || scene.gateway.admin_page("/readyz").await.unwrap();
    wait_until("it is not ready", async || ready().await.status == 503).await.unwrap();
    assert_eq!(ready().await.text().unwrap(), "shutting down\n");
    assert_eq!(scene.gateway.admin_page("/healthz").await.unwrap().status, 200);
    for key in [&scene.acme.primary, &scene.neighbour.primary] {
        assert_eq!(status_with(&scene, key).await, 200, "on a new connection");
    }
    // It need not be waited for.
    scene.gateway.signal(Signal::TERM).unwrap();
    let Scene { gateway, azure, .. } = scene;
    let (site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(128 + 15));
    drop((site, azure));
}

#[tokio::test]
async fn after_the_lame_duck_calls_that_are_open_come_to_their_end() {
    let scene = Scene::start("[listen]\nlame_duck = \"1s\"\n").await.unwrap();
    scene.azure.behave_once(Behaviour {
        tokens: 20,
        chunk_delay: std::time::Duration::from_millis(100),
        ..Behaviour::default()
    });
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let mut open =
        client.stream(chat("chat", &scene.acme.primary, &super::streamed()).unwrap()).await.unwrap();
    open.next().await.unwrap().unwrap();
    scene.gateway.signal(Signal::TERM).unwrap();
    assert!(open.rest_text().await.unwrap().ends_with("data: [DONE]\n\n"));
    let Scene { gateway, azure, .. } = scene;
    let (_site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    drop(azure);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_what_was_used_is_kept() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let scene = Scene::start("[listen]\ndrain_timeout = \"1h\"\n").await.unwrap();
        let reply =
            scene.gateway.call(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
        assert_eq!(reply.status, 200);
        let (client, open) = begun(&scene, Protocol::Http2, &scene.neighbour.primary).await;
        scene.gateway.signal(signal).unwrap();
        wait_until("it drains", async || scene.gateway.log().contains("draining")).await.unwrap();
        scene.gateway.signal(signal).unwrap();
        let Scene { gateway, azure, .. } = scene;
        let (site, status) = tokio::task::spawn_blocking(|| gateway.wait().unwrap()).await.unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + number), None));
        let used = site.run(&["usage", "--since", "1d", "--format", "csv"]).unwrap();
        let told = String::from_utf8(used.stdout).unwrap();
        assert!(told.contains("acme") && told.contains("neighbour"), "{told}");
        drop((client, open, azure));
    }
}
