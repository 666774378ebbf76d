//! What Azure refuses, by API version and by model.

use gateway_tests::harness::{Config, Reply, Site, user_says};
use gateway_tests::simulator::{Behaviour, Options, Quota, Simulator};
use serde_json::{Value, json};

use super::{CHAT, EMBEDDINGS, RESPONSES, call, simulator, stream, streamed};

/// A chat call's path at that version.
fn chat_at(version: &str) -> String {
    format!("/openai/deployments/chat/chat/completions?api-version={version}")
}

#[tokio::test]
async fn an_old_version_does_not_know_what_came_later() {
    let azure = simulator(Behaviour::default());
    let usage = streamed(user_says("hi"), &json!({"stream_options": {"include_usage": true}}));
    let mut limited = user_says("hi");
    limited["max_completion_tokens"] = json!(10);
    for (body, argument) in [(usage, "stream_options"), (limited, "max_completion_tokens")] {
        for version in ["2023-05-15", "2024-02-01", "2024-06-01", "2024-08-01-preview"] {
            let reply = call(&azure, &chat_at(version), &body).await;
            assert_eq!(reply.status, 400, "{argument} at {version}");
            let message = format!("Unrecognized request argument supplied: {argument}");
            let error =
                json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
            assert_eq!(reply.json().unwrap(), json!({"error": error}));
        }
        for version in ["2024-09-01-preview", "2024-10-21", "2025-04-01-preview"] {
            assert_eq!(call(&azure, &chat_at(version), &body).await.status, 200, "{argument} at {version}");
        }
        let mut body = body.clone();
        body["model"] = json!("chat");
        assert_eq!(call(&azure, "/openai/v1/chat/completions", &body).await.status, 200);
    }
    let mut none = streamed(user_says("hi"), &json!({}));
    none["stream_options"] = Value::Null;
    assert_eq!(call(&azure, &chat_at("2024-02-01"), &none).await.status, 200, "null is not there");
}

/// A resource with one deployment, `chat`, of that model.
fn resource(model: &str) -> Simulator {
    let azure = simulator(Behaviour::default());
    azure.deploy("chat", model);
    azure
}

/// A prompt of that many words, each a token.
fn words(count: usize) -> String {
    " one".repeat(count)
}

async fn chat_with(azure: &Simulator, key: &str, limit: u64) -> Reply {
    let mut body = user_says("hi");
    body[key] = json!(limit);
    call(azure, CHAT, &body).await
}

#[tokio::test]
async fn a_limit_above_the_models_is_refused_in_azures_words() {
    for (model, key, most) in [
        ("gpt-4o-mini", "max_tokens", 16_384),
        ("gpt-4o-2024-05-13", "max_tokens", 4_096),
        ("gpt-4o-2024-11-20", "max_completion_tokens", 16_384),
        ("gpt-4.1-nano", "max_tokens", 32_768),
        ("gpt-35-turbo", "max_tokens", 4_096),
        ("o4-mini", "max_completion_tokens", 100_000),
        ("gpt-5-chat", "max_tokens", 16_384),
        ("gpt-5", "max_completion_tokens", 128_000),
        ("gpt-5.6-terra", "max_completion_tokens", 128_000),
    ] {
        let azure = resource(model);
        assert_eq!(chat_with(&azure, key, most).await.status, 200, "{model}");
        let reply = chat_with(&azure, key, most + 1).await;
        assert_eq!(reply.status, 400, "{model}");
        let given = most + 1;
        let message = format!(
            "max_tokens is too large: {given}. This model supports at most {most} completion tokens, whereas you provided {given}."
        );
        let error = json!({"message": message, "type": "invalid_request_error", "param": "max_tokens", "code": "invalid_value"});
        assert_eq!(reply.json().unwrap(), json!({"error": error}), "{model}");
    }
    let azure = resource("gpt-4o");
    let body = json!({"model": "chat", "input": "hi", "max_output_tokens": 16_385});
    let reply = call(&azure, RESPONSES, &body).await;
    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (400, Some("integer_above_max_value")));
}

#[tokio::test]
async fn reasoning_models_refuse_max_tokens_and_old_models_its_successor() {
    for model in ["o1", "o3-mini", "gpt-5-mini", "gpt-5.1-chat", "gpt-5.4", "gpt-6-sol"] {
        let reply = chat_with(&resource(model), "max_tokens", 10).await;
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        let error = json!({"message": message, "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter"});
        assert_eq!((reply.status.as_u16(), reply.json().unwrap()), (400, json!({"error": error})), "{model}");
    }
    for model in ["gpt-35-turbo-0613", "gpt-4", "gpt-4-32k-0314", "gpt-4-turbo-2024-04-09"] {
        let azure = resource(model);
        let reply = chat_with(&azure, "max_completion_tokens", 10).await.json().unwrap();
        let message = "Unrecognized request argument supplied: max_completion_tokens";
        assert_eq!(reply["error"]["message"], message, "{model}");
        assert_eq!(chat_with(&azure, "max_tokens", 10).await.status, 200, "{model}");
    }
    for model in ["gpt-4o", "gpt-4.1", "gpt-5-chat"] {
        assert_eq!(chat_with(&resource(model), "max_completion_tokens", 10).await.status, 200, "{model}");
        assert_eq!(chat_with(&resource(model), "max_tokens", 10).await.status, 200, "{model}");
    }
}

#[tokio::test]
async fn a_prompt_and_its_limit_must_fit_into_the_window() {
    let azure = resource("gpt-4");
    let mut body = user_says(&words(8_100));
    assert_eq!(
        call(&azure, CHAT, &body).await.status,
        200,
        "without a limit the answer ends with the window"
    );
    body["max_tokens"] = json!(85);
    assert_eq!(call(&azure, CHAT, &body).await.status, 200);
    body["max_tokens"] = json!(86);
    let reply = call(&azure, CHAT, &body).await;
    let message = "This model's maximum context length is 8192 tokens. However, you requested 8193 tokens (8107 in the messages, 86 in the completion). Please reduce the length of the messages or completion.";
    let error = json!({"message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"});
    assert_eq!((reply.status.as_u16(), reply.json().unwrap()), (400, json!({"error": error})));
    let reply = call(&azure, CHAT, &user_says(&words(8_200))).await;
    let message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 8207 tokens. Please reduce the length of the messages.";
    assert_eq!(reply.json().unwrap()["error"]["message"], message);
    let body = json!({"model": "chat", "input": words(8_200)});
    assert_eq!(call(&azure, RESPONSES, &body).await.error().as_deref(), Some("context_length_exceeded"));
}

#[tokio::test]
async fn an_answer_ends_with_the_models_maximum_or_its_window() {
    let endless = Behaviour { tokens: 200_000, chunk_tokens: 1000, ..Behaviour::default() };
    let azure = simulator(endless);
    azure.deploy("chat", "gpt-4o-mini");
    let body = call(&azure, CHAT, &user_says("hi")).await.json().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 16_384);
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    azure.deploy("chat", "o1");
    // A window of 200,000, and a limit that it does not hold: cut, not refused.
    let mut body = user_says(&words(150_000));
    body["max_completion_tokens"] = json!(100_000);
    let body = call(&azure, CHAT, &body).await.json().unwrap();
    assert_eq!(body["usage"]["completion_tokens"], 49_993);
}

#[tokio::test]
async fn embeddings_have_a_window_for_each_input() {
    let azure = simulator(Behaviour::default());
    azure.deploy("embed", "text-embedding-3-small");
    let two = json!({"input": [words(8_000), words(8_000)]});
    assert_eq!(call(&azure, EMBEDDINGS, &two).await.status, 200);
    let reply = call(&azure, EMBEDDINGS, &json!({"input": words(8_200)})).await;
    let message = "This model's maximum context length is 8192 tokens, however you requested 8200 tokens (8200 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.";
    assert_eq!((reply.status.as_u16(), &reply.json().unwrap()["error"]["message"]), (400, &json!(message)));
    let many = json!({"input": vec!["a"; 2_049], "dimensions": 1});
    assert_eq!(call(&azure, EMBEDDINGS, &many).await.error().as_deref(), Some("array_above_max_length"));
}

#[tokio::test]
async fn a_name_that_is_no_deployment_is_404_once_some_are_declared() {
    let azure = resource("gpt-4o");
    let mut body = user_says("hi");
    for (model, status) in [("chat", 200), ("gpt-4o", 404), ("", 404)] {
        body["model"] = json!(model);
        let reply = call(&azure, "/openai/v1/chat/completions", &body).await;
        assert_eq!(reply.status, status, "{model}");
        assert_eq!(reply.error().as_deref(), (status == 404).then_some("DeploymentNotFound"));
        assert_eq!(call(&azure, CHAT, &body).await.status, 200, "the path decides");
    }
    let body = call(&azure, CHAT, &body).await.json().unwrap();
    assert_eq!(body["model"], "gpt-4o", "the answer names the deployment's model");
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    assert_eq!(call(&azure, other, &user_says("hi")).await.status, 404);
}

#[tokio::test]
async fn an_undeclared_deployment_has_the_model_of_its_name_or_none() {
    let azure = simulator(Behaviour::default());
    let limited = |deployment: &str| {
        let mut body = user_says("hi");
        body["model"] = json!(deployment);
        body["max_tokens"] = json!(99_985);
        body
    };
    for (deployment, status) in
        [("gpt-4o", 400), ("gpt-35-turbo-0125", 400), ("chat", 200), ("gpt-next", 200)]
    {
        let reply = call(&azure, "/openai/v1/chat/completions", &limited(deployment)).await;
        assert_eq!(reply.status, status, "{deployment}");
    }
}

#[tokio::test]
async fn a_response_to_go_on_from_must_be_stored() {
    let azure = simulator(Behaviour::default());
    let kept = call(&azure, RESPONSES, &json!({"model": "chat", "input": "hi"})).await.json().unwrap();
    let body = json!({"model": "chat", "input": "hi", "stream": true});
    let streamed = stream(&azure, RESPONSES, &body).await;
    let body = json!({"model": "chat", "input": "hi", "store": false});
    let dropped = call(&azure, RESPONSES, &body).await.json().unwrap();
    for (id, status) in [
        (&kept["id"], 200),
        (&streamed[0].1["response"]["id"], 200),
        (&dropped["id"], 400),
        (&json!("resp_unknown"), 400),
    ] {
        let body = json!({"model": "chat", "input": "and?", "previous_response_id": id});
        let reply = call(&azure, RESPONSES, &body).await;
        assert_eq!(reply.status, status, "{id}");
        if status == 400 {
            let message = format!("Previous response with id '{}' not found.", id.as_str().unwrap());
            let error = json!({"message": message, "type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found"});
            assert_eq!(reply.json().unwrap(), json!({"error": error}));
        }
    }
}

#[tokio::test]
async fn a_strict_simulator_has_the_deployments_of_its_site() {
    let azure = Simulator::start(Options { strict_models: true, ..Options::default() }).unwrap();
    let config = Config::for_simulator(&azure).unwrap();
    let site = Site::new(&azure, &config).unwrap();
    assert_eq!(chat_with(&azure, "max_tokens", 99_985).await.error().as_deref(), Some("invalid_value"));
    site.configure(&config.with("[deployments.chat]\nmodel = \"gpt-4.1\"\n").unwrap()).unwrap();
    assert_eq!(chat_with(&azure, "max_tokens", 32_768).await.status, 200);
    let lenient = Simulator::start(Options { strict_models: false, ..Options::default() }).unwrap();
    let _site = Site::new(&lenient, &Config::for_simulator(&lenient).unwrap()).unwrap();
    assert_eq!(chat_with(&lenient, "max_tokens", 99_985).await.status, 200, "only where it was asked for");
}

#[tokio::test]
async fn a_deployment_takes_no_more_than_its_quota() {
    let azure = simulator(Behaviour::default());
    azure.limit("chat", Quota { tokens_per_minute: 250, requests_per_minute: 100 });
    // A prompt of 8 tokens, and the limit: that counts, and not what is generated.
    let reply = chat_with(&azure, "max_tokens", 100).await;
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("142"));
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("99"));
    assert_eq!(chat_with(&azure, "max_tokens", 100).await.status, 200);
    let reply = chat_with(&azure, "max_tokens", 100).await;
    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (429, Some("429")));
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("34"));
    let wait: u64 = reply.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&wait), "{wait}");
    assert_eq!(azure.totals("chat").calls, 2, "what is refused is not processed");
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    assert_eq!(
        call(&azure, other, &user_says("hi")).await.header("x-ratelimit-limit-tokens"),
        Some("1000000")
    );
}
