//! What Azure refuses, by API version and by model.

use gateway_tests::harness::user_says;
use serde_json::{Value, json};

use super::{call, simulator, streamed};
use gateway_tests::simulator::Behaviour;

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
