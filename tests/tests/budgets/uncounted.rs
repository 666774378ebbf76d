//! Prompts are tokenised where a budget or a bill depends on it, and nowhere else.

use gateway_tests::harness::{Protocol, Scene, chat, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, Fault, UsageReport};
use serde_json::{Value, json};

use super::{PROTOCOLS, RESPONSES, booked, call, streamed};

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
/// Room for a hundred thousand times as many bytes.
const AMPLE: &str = "[tiers.default]\ntokens_per_minute = 2000000000\n";

/// About 20 KB, and a fifth as many tokens.
fn long() -> Value {
    user_says(&"All work and no play makes Jack a dull boy. ".repeat(450))
}

async fn counted(scene: &Scene) -> f64 {
    scene.gateway.metric("gateway_prompts_counted_total", &[]).await.unwrap()
}

#[tokio::test]
async fn far_from_every_limit_nothing_is_tokenised() {
    let tiers = format!("{AMPLE}spend_quota = {{ dollars = 1000000, period = \"daily\" }}\n[tiers.bare]\n");
    let scene = Scene::start(&tiers).await.unwrap();
    let bare = scene.gateway.site().add_tenant("bare", Some("bare")).unwrap().primary;
    wait_until("the tenant is known", async || scene.status_of("bare").await.is_ok()).await.unwrap();
    let picture =
        json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}});
    let seen = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]});
    for key in [&scene.acme.primary, &bare] {
        for protocol in PROTOCOLS {
            for body in [long(), streamed(long()), user_says("hi"), streamed(user_says("hi")), seen.clone()] {
                let mut client = scene.gateway.connect(protocol).await.unwrap();
                let reply = client.send(chat("chat", key, &body).unwrap()).await.unwrap();
                assert_eq!(reply.status, 200, "{:?}", reply.body);
            }
        }
    }
    scene.at_rest().await.unwrap();
    assert_eq!(counted(&scene).await, 0.0);
    let total = scene.gateway.metric("aoai_tokens_consumed_total", &[]).await.unwrap();
    assert_eq!(total, scene.azure.totals("chat").tokens() as f64);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn near_a_limit_prompts_are_tokenised_and_let_in_as_long_as_their_tokens_fit() {
    let scene = Scene::start("[tiers.default]\ntokens_per_minute = 12000\n").await.unwrap();
    let mut body = long();
    body["max_tokens"] = 20.into();
    assert_eq!(call(&scene, CHAT, &body).await.status, 200);
    assert_eq!(counted(&scene).await, 1.0);
    assert_eq!(call(&scene, CHAT, &body).await.status, 200, "the first is held at no more than it needed");
    let refused = call(&scene, CHAT, &body).await;
    assert_eq!((refused.status.as_u16(), refused.error().as_deref()), (429, Some("token_budget_exceeded")));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_call_without_usage_pays_its_prompts_tokens_and_not_its_bytes() {
    let scene = Scene::start(AMPLE).await.unwrap();
    let missing = || Behaviour { usage: UsageReport::Missing, tokens: 30, ..Behaviour::default() };
    let broken = |after_chunks| Behaviour { fault: Some(Fault::Truncated { after_chunks }), ..missing() };
    let (mut calls, mut prompts) = (0.0, 0.0);
    for (path, body) in [(CHAT, long()), (RESPONSES, json!({"model": "chat", "input": "word ".repeat(4000)}))]
    {
        for (behaviour, body) in [
            (missing(), streamed(body.clone())),
            (missing(), body.clone()),
            (broken(3), streamed(body.clone())),
        ] {
            for protocol in PROTOCOLS {
                scene.azure.behave(behaviour.clone());
                let mut client = scene.gateway.connect(protocol).await.unwrap();
                let request = post(path, &scene.acme.primary, &body).unwrap();
                let mut answer = client.stream(request).await.unwrap();
                // One that breaks off is not read to its end.
                drop(answer.rest().await);
                drop((answer, client));
                scene.at_rest().await.unwrap();
                calls += 1.0;
                prompts = scene.azure.all_totals().prompt_tokens as f64;
                assert_eq!(
                    booked(&scene, "aoai_prompt_tokens_total").await,
                    prompts,
                    "{protocol:?} {behaviour:?}"
                );
            }
        }
    }
    // The caller hangs up, before and after the head has come.
    for stalls in [Fault::Stall { after_chunks: 0 }, Fault::Stall { after_chunks: 2 }] {
        scene.azure.behave(Behaviour { fault: Some(stalls), ..missing() });
        let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
        let before = scene.azure.requests().len();
        {
            let mut asking =
                Box::pin(client.stream(chat("chat", &scene.acme.primary, &streamed(long())).unwrap()));
            let reached = wait_until("upstream has it", async || scene.azure.requests().len() > before);
            tokio::select! { _ = &mut asking => {}, reached = reached => reached.unwrap() }
        }
        drop(client);
        scene.at_rest().await.unwrap();
        calls += 1.0;
    }
    let each = estimate_of(&scene).await;
    let all = booked(&scene, "aoai_prompt_tokens_total").await;
    assert_eq!(all, prompts + 2.0 * each);
    assert_eq!(counted(&scene).await, calls);
    scene.unharmed().await.unwrap();
}

/// Tokens of the long prompt, as upstream counts them.
async fn estimate_of(scene: &Scene) -> f64 {
    scene.azure.behave(Behaviour::default());
    let reply = scene.gateway.call(chat("chat", &scene.neighbour.primary, &long()).unwrap()).await.unwrap();
    reply.json().unwrap()["usage"]["prompt_tokens"].as_f64().unwrap()
}

#[tokio::test]
async fn a_stream_that_is_cut_says_the_tokens_that_it_pays() {
    let scene = Scene::start(AMPLE).await.unwrap();
    scene.azure.behave(Behaviour {
        tokens: 5000,
        chunk_delay: std::time::Duration::from_millis(50),
        ..Behaviour::default()
    });
    let mut body = streamed(long());
    body["stream_options"] = json!({"include_usage": true});
    let mut client = scene.gateway.connect(Protocol::Http2).await.unwrap();
    let mut answer = client.stream(chat("chat", &scene.acme.primary, &body).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200);
    answer.next().await.unwrap().unwrap();
    assert_eq!(counted(&scene).await, 0.0);
    scene.gateway.site().run(&["tenant", "suspend", "acme"]).unwrap();
    let text = answer.rest_text().await.unwrap();
    let usage = text.lines().rfind(|line| line.contains("\"usage\":{")).unwrap();
    let usage: Value = serde_json::from_str(usage.strip_prefix("data: ").unwrap()).unwrap();
    scene.at_rest().await.unwrap();
    assert_eq!(usage["usage"]["prompt_tokens"].as_f64().unwrap(), estimate_of(&scene).await);
    assert_eq!(
        usage["usage"]["prompt_tokens"].as_f64().unwrap(),
        booked(&scene, "aoai_prompt_tokens_total").await
    );
    let trailer = answer.trailers["x-tokens-consumed"].to_str().unwrap().parse::<f64>().unwrap();
    assert_eq!(trailer, booked(&scene, "aoai_tokens_consumed_total").await);
}
