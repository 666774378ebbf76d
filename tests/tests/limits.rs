//! Nothing is sent that Azure refuses: limits on an answer, names of models, fields of older API versions, tools.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

use gateway_tests::harness::{Reply, Scene, post, user_says};
use gateway_tests::simulator::{Behaviour, UsageReport};
use serde_json::{Value, json};

const DATED: &str = "chat/completions?api-version=2024-10-21";
const RESPONSES: &str = "/openai/v1/responses";
/// Deployments of models that differ in window, output maximum and field.
const MODELS: &str = "[deployments.omni]\nmodel = \"gpt-4o\"\n\
    [deployments.first-omni]\nmodel = \"gpt-4o-2024-05-13\"\n\
    [deployments.small]\nmodel = \"gpt-35-turbo\"\n\
    [deployments.thinker]\nmodel = \"o4-mini\"\n\
    [deployments.strange]\nmodel = \"someone-elses\"\n\
    [deployments.told]\nmodel = \"someone-elses-2\"\nmax_output_tokens = 1000\n";

async fn scene(tokens_per_minute: u32, tier: &str) -> Scene {
    let tier = format!("[tiers.default]\ntokens_per_minute = {tokens_per_minute}\n{tier}");
    Scene::start(&format!("{MODELS}{tier}")).await.unwrap()
}

async fn call(scene: &Scene, path: &str, body: &Value) -> Reply {
    let reply = scene.gateway.call(post(path, &scene.acme.primary, body).unwrap()).await.unwrap();
    scene.at_rest().await.unwrap();
    reply
}

fn chat_path(deployment: &str) -> String {
    format!("/openai/deployments/{deployment}/{DATED}")
}

/// The body that came to Azure last.
fn sent(scene: &Scene) -> Value {
    scene.azure.requests().last().unwrap().json().unwrap()
}

/// The limit on an answer that came to Azure last, in whichever field.
fn limit_sent(scene: &Scene) -> Option<u64> {
    let body = sent(scene);
    ["max_tokens", "max_completion_tokens", "max_output_tokens"].iter().find_map(|key| body[key].as_u64())
}

#[tokio::test]
async fn a_call_that_names_no_limit_is_sent_none_where_all_that_the_model_writes_is_held() {
    let scene = scene(2_000_000, "").await;
    for deployment in ["omni", "first-omni", "small", "thinker", "told"] {
        let reply = call(&scene, &chat_path(deployment), &user_says("hi")).await;
        assert_eq!((reply.status.as_u16(), limit_sent(&scene)), (200, None), "{deployment}");
    }
    let responses = json!({"model": "thinker", "input": "hi"});
    assert_eq!(call(&scene, RESPONSES, &responses).await.status, 200);
    assert_eq!(limit_sent(&scene), None);
}

#[tokio::test]
async fn a_limit_is_never_above_the_models_own() {
    for tokens_per_minute in [20_000, 60_000, 70_000, 200_000, 400_000] {
        let scene = scene(tokens_per_minute, "").await;
        for (deployment, most) in
            [("omni", 16_384), ("first-omni", 4096), ("small", 4096), ("thinker", 100_000), ("told", 1000)]
        {
            let reply = call(&scene, &chat_path(deployment), &user_says("hi")).await;
            assert_eq!(reply.status, 200, "{deployment}: {:?}", reply.body);
            let limit = limit_sent(&scene);
            assert!(limit.is_none_or(|limit| limit < most), "{deployment}: {limit:?} at {tokens_per_minute}");
            let field = if deployment == "thinker" { "max_tokens" } else { "max_completion_tokens" };
            assert_eq!(sent(&scene).get(field), None, "{deployment}");
        }
    }
}

#[tokio::test]
async fn a_limit_and_the_prompt_fit_the_models_window() {
    let scene = scene(26_000, "").await;
    // Between 12,500 and 14,500 tokens: beside an output of 4,096 more than 16,385.
    let prompt = "word ".repeat(13_500);
    let reply = call(&scene, &chat_path("small"), &user_says(&prompt)).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let read = reply.json().unwrap()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!((12_500..14_500).contains(&read), "{read}");
    let limit = limit_sent(&scene).unwrap();
    assert!(limit + read <= 16_385, "{limit} beside {read}");
}

#[tokio::test]
async fn a_limit_that_the_caller_named_is_only_ever_lowered() {
    let scene = scene(20_000, "").await;
    for (deployment, field, named) in [
        ("omni", "max_tokens", 100),
        ("omni", "max_completion_tokens", 50_000),
        ("thinker", "max_completion_tokens", 300),
        ("strange", "max_completion_tokens", 700),
    ] {
        let mut body = user_says("hi");
        body[field] = named.into();
        assert_eq!(call(&scene, &chat_path(deployment), &body).await.status, 200, "{deployment} {field}");
        let limit = sent(&scene)[field].as_u64().unwrap();
        assert!(limit <= named && (named > 1000 || limit == named), "{limit} of {named}");
    }
}

#[tokio::test]
async fn a_model_that_nobody_knows_needs_a_limit_under_a_strict_ceiling() {
    let strict = scene(20_000, "").await;
    let reply = call(&strict, &chat_path("strange"), &user_says("hi")).await;
    assert_eq!((reply.status.as_u16(), reply.error().unwrap().as_str()), (400, "invalid_request"));
    let said = reply.text().unwrap();
    assert!(
        said.contains("max_completion_tokens") && said.contains("deployments.strange.max_output_tokens"),
        "{said}"
    );
    assert_eq!(strict.azure.requests().len(), 0);
    strict.unharmed().await.unwrap();

    let soft = scene(20_000, "ceiling = \"soft\"\n").await;
    assert_eq!(call(&soft, &chat_path("strange"), &user_says("hi")).await.status, 200);
}

#[tokio::test]
async fn the_path_decides_whatever_model_the_body_names() {
    let scene = scene(1_000_000, "").await;
    for model in [
        json!(null),
        json!(""),
        json!("gpt-4o-2024-08-06"),
        json!("gpt-3.5-turbo"),
        json!("thinker"),
        json!(5),
        json!({"a": 1}),
    ] {
        let mut body = user_says("hi");
        body["model"] = model.clone();
        let reply = call(&scene, &chat_path("omni"), &body).await;
        assert_eq!(reply.status, 200, "{model}: {:?}", reply.body);
        let request = scene.azure.requests().pop().unwrap();
        assert!(request.target.contains("/deployments/omni/"), "{}", request.target);
        assert_eq!(request.json().unwrap()["model"], "omni", "{model}");
    }
    let booked = scene.gateway.metric("gateway_requests_total", &[("deployment", "omni")]).await.unwrap();
    assert_eq!(booked, 7.0);
    // There the body is all that names it.
    let mut body = user_says("hi");
    body["model"] = "gpt-4o-2024-08-06".into();
    let reply = call(&scene, "/openai/v1/chat/completions", &body).await;
    assert_eq!((reply.status.as_u16(), reply.error().unwrap().as_str()), (404, "unknown_deployment"));
}

#[tokio::test]
async fn older_api_versions_are_sent_no_field_that_they_do_not_know() {
    for tier in ["", "ceiling = \"soft\"\n"] {
        let scene = scene(1_000_000, tier).await;
        scene.azure.behave(Behaviour { tokens: 40, ..Behaviour::default() });
        let mut body = user_says("hi");
        body["stream"] = true.into();
        for (version, knows) in [
            ("2023-05-15", false),
            ("2024-02-01", false),
            ("2024-06-01", false),
            ("2024-08-01-preview", false),
            ("2024-09-01-preview", true),
            ("2024-10-21", true),
            ("2025-04-01-preview", true),
            ("preview", true),
        ] {
            let before = booked_output(&scene).await;
            let path = format!("/openai/deployments/omni/chat/completions?api-version={version}");
            assert_eq!(call(&scene, &path, &body).await.status, 200, "{version}");
            assert_eq!(sent(&scene).get("stream_options").is_some(), knows, "{version}");
            assert_eq!(booked_output(&scene).await - before, 40.0, "{version} is counted all the same");
        }
    }
}

async fn booked_output(scene: &Scene) -> f64 {
    scene.gateway.metric("aoai_completion_tokens_total", &[("tenant", "acme")]).await.unwrap()
}

#[tokio::test]
async fn tools_of_the_caller_are_served_and_others_are_named() {
    let scene = scene(1_000_000, "").await;
    let mut body = json!({"model": "thinker", "input": "hi"});
    for tool in [
        json!({"type": "apply_patch"}),
        json!({"type": "local_shell"}),
        json!({"type": "shell", "environment": {"type": "local"}}),
        json!({"type": "computer_use_preview", "display_width": 800}),
        json!({"type": "tool_search", "execution": "client"}),
        json!({"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}),
        json!({"type": "custom", "name": "c"}),
    ] {
        body["tools"] = json!([tool]);
        let reply = call(&scene, RESPONSES, &body).await;
        assert_eq!(reply.status, 200, "{tool}: {:?}", reply.body);
    }
    let served = scene.azure.requests().len();
    for (kind, tool) in [
        ("shell", json!({"type": "shell", "environment": {"type": "container_auto"}})),
        ("tool_search", json!({"type": "tool_search"})),
        ("yet_to_come", json!({"type": "yet_to_come"})),
        ("web_search", json!({"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]})),
    ] {
        body["tools"] = json!([tool]);
        let reply = call(&scene, RESPONSES, &body).await;
        assert_eq!(reply.status, 400, "{tool}");
        assert!(reply.text().unwrap().contains(&format!("`{kind}`")), "{}", reply.text().unwrap());
    }
    assert_eq!(scene.azure.requests().len(), served);
}

#[tokio::test]
async fn state_that_azure_keeps_for_all_tenants_is_named_by_none_that_may_not() {
    let bodies = [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": {"id": "conv_1"}}),
        json!({"input": [{"id": "msg_1"}]}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    ];
    for (tier, allowed) in [
        ("", false),
        ("ceiling = \"soft\"\n", false),
        ("ceiling = \"soft\"\nstored_state = true\n", true),
        ("stored_state = true\n", false),
    ] {
        let scene = scene(1_000_000, tier).await;
        for body in &bodies {
            let mut body = body.clone();
            body["model"] = "omni".into();
            if body.get("input").is_none() {
                body["input"] = "hi".into();
            }
            let reply = call(&scene, RESPONSES, &body).await;
            let reached = scene.azure.requests().len();
            assert_eq!((reply.status == 400 && reached == 0), !allowed, "{tier}: {body}: {:?}", reply.body);
        }
    }
}

#[tokio::test]
async fn estimates_follow_upstreams_counts_of_the_tenants_own_calls() {
    // So near the limit that the prompts are tokenised.
    let scene = scene(75_000, "").await;
    let (mut prompt, path) = (user_says(&"word ".repeat(1000)), chat_path("omni"));
    prompt["max_tokens"] = 1.into();
    let estimates = async |tenant: &str| scene.status_of(tenant).await.unwrap()["estimates"].clone();
    let shortfall = async || {
        let labels = [("tenant", "acme"), ("deployment", "omni")];
        scene.gateway.metric("gateway_estimate_shortfall_tokens_total", &labels).await.unwrap()
    };

    let honest = call(&scene, &path, &prompt).await.json().unwrap();
    let estimate = honest["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!((estimates("acme").await, shortfall().await), (json!([]), 0.0));
    let counted = estimate * 6 / 5;
    scene.azure.behave(Behaviour {
        usage: UsageReport::Wrong { input: counted, output: 1 },
        ..Behaviour::default()
    });
    for _ in 0..40 {
        assert_eq!(call(&scene, &path, &prompt).await.status, 200);
    }
    let learned = estimates("acme").await;
    assert_eq!((&learned[0]["deployment"], &learned[0]["kind"]), (&json!("omni"), &json!("chat")));
    assert!((1.15..1.21).contains(&learned[0]["upstreamOverEstimate"].as_f64().unwrap()), "{learned}");
    let missed = shortfall().await;
    let each = u32::try_from(counted - estimate).unwrap();
    assert!(missed >= f64::from(7 * each), "of the first calls at least: {missed}");
    assert!(missed <= f64::from(20 * each), "and less and less: {missed}");
    // Nobody else's calls are held at more.
    let neighbours = post(&path, &scene.neighbour.primary, &prompt).unwrap();
    assert_eq!(scene.gateway.call(neighbours).await.unwrap().status, 200);
    scene.at_rest().await.unwrap();
    assert_eq!(estimates("neighbour").await, json!([]));
}

#[tokio::test]
async fn an_endpoint_that_ends_with_a_slash_is_served() {
    let scene = scene(1_000_000, "").await;
    let path = format!("/{}", chat_path("omni"));
    assert!(path.starts_with("//openai/"));
    assert_eq!(call(&scene, &path, &user_says("hi")).await.status, 200);
    assert_eq!(scene.azure.requests().pop().unwrap().target, chat_path("omni"));
}
