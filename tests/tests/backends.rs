//! Several backends: who gets a call, and what becomes of one that is down.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use gateway_tests::harness::{Config, Scene, Unheard, chat, user_says, wait_until};
use gateway_tests::simulator::{Options, Simulator};
use rustix::process::Signal;
use tokio::time::timeout;

fn second(listen: SocketAddr) -> Simulator {
    Simulator::start(Options { listen, check_tokens: false, ..Options::default() }).unwrap()
}

async fn status_of_a_call(scene: &Scene) -> u16 {
    let request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    scene.gateway.call(request).await.unwrap().status.as_u16()
}

async fn is_up(scene: &Scene, backend: &str) -> bool {
    scene.gateway.metric("gateway_backend_up", &[("backend", backend)]).await.unwrap() > 0.0
}

async fn is_up_in_status(scene: &Scene, backend: &str) -> bool {
    let status = scene.gateway.admin_page("/status").await.unwrap().json().unwrap();
    let of_backend =
        status["backends"].as_array().unwrap().iter().find(|entry| entry["name"] == backend).unwrap();
    of_backend["up"].as_bool().unwrap()
}

#[tokio::test]
async fn a_backend_that_is_down_is_out_until_it_is_back() {
    let azure = Simulator::start(Options::default()).unwrap();
    let place = Unheard::new().unwrap();
    let address = place.address();
    let backends = format!(
        "[[backends]]\nname = \"spare\"\nendpoint = \"{}\"\npriority = 2\n\
         [[backends]]\nname = \"first\"\nendpoint = \"http://{address}\"\npriority = 1\n",
        azure.endpoint()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    assert!(is_up(&scene, "first").await, "until the contrary is known");
    for _ in 0..3 {
        assert!(is_up(&scene, "first").await, "it takes three failures");
        assert_eq!(status_of_a_call(&scene).await, 200);
    }
    assert!(!is_up(&scene, "first").await && !is_up_in_status(&scene, "first").await);
    assert!(is_up(&scene, "spare").await && is_up_in_status(&scene, "spare").await);
    assert_eq!(scene.azure.requests().len(), 3);

    // A reload that leaves it as it was does not forget that it is out.
    let generation = async || scene.gateway.metric("gateway_config_generation", &[]).await.unwrap();
    let before = generation().await;
    scene.gateway.signal(Signal::HUP).unwrap();
    wait_until("it has reloaded", async || generation().await > before).await.unwrap();
    assert!(!is_up(&scene, "first").await);

    let first = second(address);
    wait_until("it is seen to be back, without a call", async || is_up(&scene, "first").await).await.unwrap();
    assert_eq!(status_of_a_call(&scene).await, 200);
    assert_eq!((first.requests().len(), scene.azure.requests().len()), (1, 3));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn one_failure_puts_no_backend_out() {
    let azure = Simulator::start(Options::default()).unwrap();
    let place = Unheard::new().unwrap();
    let address = place.address();
    let backends = format!(
        "[[backends]]\nname = \"spare\"\nendpoint = \"{}\"\npriority = 2\n\
         [[backends]]\nname = \"first\"\nendpoint = \"http://{address}\"\npriority = 1\n",
        azure.endpoint()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    assert_eq!(status_of_a_call(&scene).await, 200);
    let first = second(address);
    // Were it out, this call would come before the first trial, and go to the spare one.
    assert_eq!(status_of_a_call(&scene).await, 200);
    assert_eq!((first.requests().len(), scene.azure.requests().len()), (1, 1));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_silent_backend_is_found_out_though_its_callers_do_not_wait() {
    let azure = Simulator::start(Options::default()).unwrap();
    // It accepts, and never says a word of TLS.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let backends = format!(
        "[[backends]]\nname = \"spare\"\nendpoint = \"{}\"\npriority = 2\n\
         [[backends]]\nname = \"first\"\nendpoint = \"https://{}\"\nconnect_timeout = \"1s\"\n",
        azure.endpoint(),
        silent.local_addr().unwrap()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    wait_until("it is out", async || {
        let up = is_up(&scene, "first").await;
        if up {
            drop(timeout(Duration::from_millis(200), status_of_a_call(&scene)).await);
        }
        !up
    })
    .await
    .unwrap();
    assert_eq!(status_of_a_call(&scene).await, 200);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn equals_share_the_calls_by_weight() {
    let azure = Simulator::start(Options::default()).unwrap();
    let small = second((Ipv4Addr::LOCALHOST, 0).into());
    let backends = format!(
        "[[backends]]\nname = \"large\"\nendpoint = \"{}\"\nweight = 3\n\
         [[backends]]\nname = \"small\"\nendpoint = \"{}\"\n",
        azure.endpoint(),
        small.endpoint()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    for _ in 0..40 {
        assert_eq!(status_of_a_call(&scene).await, 200);
    }
    let shares = (scene.azure.requests().len(), small.requests().len());
    assert_eq!(shares.0 + shares.1, 40);
    assert!((8..=12).contains(&shares.1), "{shares:?}");
    scene.unharmed().await.unwrap();
}
