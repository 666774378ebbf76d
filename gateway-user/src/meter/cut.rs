//! The end of a stream that the gateway ends itself: well formed, so that a client parses it, and saying why.

use serde_json::{Value, json};

use super::stream::StreamIdentity;
use super::usage::Usage;
use crate::api::Api;

/// Why and with what a stream is ended.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    /// The word for it, as in refusals.
    pub reason: &'static str,
    /// The sentence for it.
    pub message: &'a str,
    /// The type of the same refusal as an HTTP answer.
    pub kind: &'static str,
    /// Whether a limit ended it, as if the answer had come to its own.
    pub by_budget: bool,
    /// What the call used, where the caller asked for it on its stream.
    pub usage: Option<Usage>,
}

/// The last bytes of the stream.
#[must_use]
pub fn ending(api: Api, identity: &StreamIdentity, cut: &Cut<'_>) -> String {
    match api {
        Api::Responses => response_ending(identity, cut),
        Api::ChatCompletions => chunk_ending(identity, cut, "chat.completion.chunk", &json!({"delta": {}})),
        Api::Completions | Api::Embeddings => {
            chunk_ending(identity, cut, "text_completion", &json!({"text": ""}))
        }
    }
}

fn chunk_ending(identity: &StreamIdentity, cut: &Cut<'_>, object: &str, choice: &Value) -> String {
    let chunk = |choices: Vec<Value>, usage: Value| {
        json!({
            "id": identity.id,
            "object": object,
            "created": identity.created,
            "model": identity.model,
            "choices": choices,
            "usage": usage,
        })
    };
    let choices = (0..identity.choices.max(1)).map(|index| {
        let mut choice = choice.clone();
        choice["index"] = index.into();
        choice["finish_reason"] = "length".into();
        choice
    });
    let mut text = String::new();
    if cut.by_budget {
        text.push_str(&format!("data: {}\n\n", chunk(choices.collect(), Value::Null)));
    }
    if let Some(usage) = &cut.usage {
        let usage = json!({
            "prompt_tokens": usage.input.get(),
            "completion_tokens": usage.output.get(),
            "total_tokens": usage.total().get(),
        });
        text.push_str(&format!("data: {}\n\n", chunk(Vec::new(), usage)));
    }
    text.push_str(&format!("data: {}\n\ndata: [DONE]\n\n", json!({"error": error(cut)})));
    text
}

fn response_ending(identity: &StreamIdentity, cut: &Cut<'_>) -> String {
    let usage = cut.usage.map(|usage| {
        json!({
            "input_tokens": usage.input.get(),
            "input_tokens_details": {"cached_tokens": usage.cached_input.get()},
            "output_tokens": usage.output.get(),
            "output_tokens_details": {"reasoning_tokens": usage.reasoning.get()},
            "total_tokens": usage.total().get(),
        })
    });
    let (event, status) =
        if cut.by_budget { ("response.incomplete", "incomplete") } else { ("response.failed", "failed") };
    let details = if cut.by_budget { json!({"reason": "max_output_tokens"}) } else { Value::Null };
    let data = json!({
        "type": event,
        "sequence_number": identity.sequence_number.saturating_add(1),
        "response": {
            "id": identity.id,
            "object": "response",
            "created_at": identity.created,
            "status": status,
            "error": error(cut),
            "incomplete_details": details,
            "model": identity.model,
            "output": [],
            "parallel_tool_calls": true,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        },
    });
    format!("event: {event}\ndata: {data}\n\n")
}

fn error(cut: &Cut<'_>) -> Value {
    json!({"code": cut.reason, "message": cut.message, "type": cut.kind, "param": null})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::stream::StreamMeter;
    use crate::model::Encoding;
    use crate::units::Tokens;

    #[test]
    fn an_ending_is_read_like_upstreams_own() {
        let usage = Usage { input: Tokens::new(4), output: Tokens::new(6), ..Usage::default() };
        for api in [Api::ChatCompletions, Api::Completions, Api::Responses] {
            let identity =
                StreamIdentity { id: "chatcmpl-1".into(), choices: 2, ..StreamIdentity::default() };
            let cut = Cut {
                reason: "token_budget_exceeded",
                message: "used up",
                kind: "rate_limit_error",
                by_budget: true,
                usage: Some(usage),
            };
            let text = ending(api, &identity, &cut);
            let mut meter = StreamMeter::new(api, Encoding::O200k);
            meter.push(text.as_bytes());
            assert!(meter.finished() && meter.at_boundary(), "{text}");
            assert_eq!(meter.usage().map(Usage::total), Some(Tokens::new(10)));
            assert_eq!(meter.unreadable(), 0);
            assert!(text.contains("\"code\":\"token_budget_exceeded\""));
        }
    }

    #[test]
    fn an_ending_by_anything_but_a_budget_says_so() {
        let cut = Cut {
            reason: "invalid_subscription_key",
            message: "revoked",
            kind: "authentication_error",
            by_budget: false,
            usage: None,
        };
        for api in [Api::ChatCompletions, Api::Completions, Api::Responses] {
            let text = ending(api, &StreamIdentity::default(), &cut);
            assert!(!text.contains("\"length\"") && !text.contains("max_output_tokens"), "{text}");
            assert!(text.contains("\"type\":\"authentication_error\""), "{text}");
            let mut meter = StreamMeter::new(api, Encoding::O200k);
            meter.push(text.as_bytes());
            assert!(meter.finished() && meter.at_boundary() && meter.unreadable() == 0, "{text}");
        }
    }
}
