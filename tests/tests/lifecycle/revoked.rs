//! Calls that are open when their tenant is suspended or removed, or their key rotated out.

use std::io::Write as _;
use std::time::Duration;

use gateway_tests::harness::{Protocol, Scene, ScriptedUpstream, chat, post, user_says, wait_until};
use gateway_tests::simulator::Behaviour;
use serde_json::json;

use super::{PROTOCOLS, begun, status_with};

#[tokio::test]
async fn streams_end_with_the_right_to_them_and_others_go_on() {
    let scene = Scene::start("").await.unwrap();
    let site = scene.gateway.site();
    for (command, protocol) in
        [("suspend", Protocol::Http1), ("rotate", Protocol::Http2), ("remove", Protocol::Http1)]
    {
        let keys = site.add_tenant("short", None).unwrap();
        wait_until("it may call", async || status_with(&scene, &keys.primary).await == 200).await.unwrap();
        let (_client, mut ended) = begun(&scene, protocol, &keys.primary).await;
        let (_other_client, mut other) = begun(&scene, protocol, &keys.secondary).await;
        let (_neighbours, mut neighbour) = begun(&scene, protocol, &scene.neighbour.primary).await;
        match command {
            "rotate" => drop(site.rotate_key("short", "primary").unwrap()),
            _ => assert!(site.run(&["tenant", command, "short"]).unwrap().status.success()),
        }
        let text = ended.rest_text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{command}: well formed to the end");
        assert!(text.contains("\"code\":\"invalid_subscription_key\""), "{command}: with the reason");
        if command == "rotate" {
            other.next().await.unwrap().unwrap();
        } else {
            other.rest().await.unwrap();
        }
        neighbour.next().await.unwrap().unwrap();
        drop((other, neighbour, _other_client, _neighbours));
        if command != "remove" {
            site.run(&["tenant", "remove", "short"]).unwrap();
        }
        scene.at_rest().await.unwrap();
    }
    let cut = [("tenant", "short"), ("reason", "invalid_subscription_key")];
    assert_eq!(scene.gateway.metric("gateway_streams_cut_total", &cut).await.unwrap(), 5.0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn calls_that_wait_for_their_answer_end_with_the_right_to_it() {
    let scene = Scene::start("").await.unwrap();
    let site = scene.gateway.site();
    let silent = Behaviour { first_byte_delay: Duration::from_hours(1), ..Behaviour::default() };
    scene.azure.behave_for("instruct", silent);
    for (command, protocol, stream) in [
        ("suspend", Protocol::Http1, false),
        ("rotate", Protocol::Http2, true),
        ("remove", Protocol::Http2, false),
    ] {
        let keys = site.add_tenant("short", None).unwrap();
        wait_until("it may call", async || status_with(&scene, &keys.primary).await == 200).await.unwrap();
        scene.at_rest().await.unwrap();
        let paid = async |what| scene.gateway.metric(what, &[("tenant", "short")]).await.unwrap();
        let (input, output) = ("aoai_prompt_tokens_total", "aoai_completion_tokens_total");
        let before = [paid(input).await, paid(output).await];
        let body = json!({"prompt": "hi", "max_tokens": 77, "stream": stream});
        let request =
            post("/openai/deployments/instruct/completions?api-version=1", &keys.primary, &body).unwrap();
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let call = tokio::spawn(async move { client.send(request).await.unwrap() });
        wait_until("upstream has it", async || scene.azure.totals("instruct").open() == 1).await.unwrap();
        match command {
            "rotate" => drop(site.rotate_key("short", "primary").unwrap()),
            _ => assert!(site.run(&["tenant", command, "short"]).unwrap().status.success()),
        }
        let reply = call.await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_deref()),
            (401, Some("invalid_subscription_key")),
            "{command}"
        );
        wait_until("upstream is cancelled", async || scene.azure.totals("instruct").open() == 0)
            .await
            .unwrap();
        scene.at_rest().await.unwrap();
        // As for a caller that hangs up: upstream may have written all that it was allowed to.
        assert!(paid(input).await > before[0]);
        assert_eq!(paid(output).await - before[1], 77.0);
        if command != "remove" {
            site.run(&["tenant", "remove", "short"]).unwrap();
        }
    }
    let ended = [("tenant", "short"), ("status", "401"), ("deployment", "instruct")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &ended).await.unwrap(), 3.0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn answers_in_one_piece_end_with_the_right_to_them() {
    // As much of an answer as the gateway holds back before it forwards, and then byte after byte.
    for (length, forwarded) in [(1000, false), (1_100_000, true)] {
        let upstream = ScriptedUpstream::start(move |stream| {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"
            )?;
            stream.write_all(&vec![b' '; length])?;
            loop {
                stream.write_all(b" ")?;
                #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
                std::thread::sleep(Duration::from_millis(20));
            }
        })
        .unwrap();
        let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
        let mut body = user_says("hi");
        body["max_tokens"] = 77.into();
        for protocol in PROTOCOLS {
            let before = scene.gateway.metric("aoai_completion_tokens_total", &[]).await.unwrap();
            let request = chat("odd", &scene.acme.primary, &body).unwrap();
            let mut client = scene.gateway.connect(protocol).await.unwrap();
            let mut call = tokio::spawn(async move {
                let mut streaming = client.stream(request).await.unwrap();
                let status = streaming.status.as_u16();
                let began = forwarded && streaming.next().await.unwrap().is_some();
                (status, began, streaming, client)
            });
            wait_until("it is open", async || {
                scene.gateway.metric("gateway_inflight", &[("tenant", "acme")]).await.unwrap() == 1.0
            })
            .await
            .unwrap();
            let mut begun = None;
            if forwarded {
                begun = Some((&mut call).await.unwrap());
            }
            scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
            if let Some((status, began, mut streaming, _client)) = begun {
                assert_eq!((status, began), (200, true));
                assert!(streaming.rest().await.is_err(), "a broken answer must not look complete");
            } else {
                let (status, _, mut streaming, _client) = call.await.unwrap();
                assert_eq!(status, 401);
                assert!(streaming.rest_text().await.unwrap().contains("invalid_subscription_key"));
            }
            scene.at_rest().await.unwrap();
            let after = scene.gateway.metric("aoai_completion_tokens_total", &[]).await.unwrap();
            assert_eq!(after - before, 77.0, "upstream may have written all that it was allowed to");
            scene.gateway.site().run(&["tenant", "resume", "acme"]).unwrap();
            wait_until("it may call again", async || status_with(&scene, &scene.acme.primary).await == 200)
                .await
                .unwrap();
        }
        scene.unharmed().await.unwrap();
    }
}
