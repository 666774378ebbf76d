//! Chat completions, whole and streamed, as Azure's API version 2024-10-21 documents them.

use serde_json::{Value, json};

use super::answer::{Event, Events, FINGERPRINT, Heading, Template, harmless, prompt_filter_results};
use super::call::Call;

/// The answer in one piece.
pub(crate) fn whole(call: &Call, heading: &Heading) -> Value {
    let message = match (&heading.unknown_delta, &call.tool) {
        (Some(field), _) => {
            let mut message =
                json!({"annotations": [], "content": null, "refusal": null, "role": "assistant"});
            message[field] = call.said().into();
            message
        }
        (None, Some(name)) => json!({
            "content": null,
            "refusal": null,
            "role": "assistant",
            "tool_calls": [{
                "function": {"arguments": call.said(), "name": name},
                "id": tool_id(heading, 0),
                "type": "function",
            }],
        }),
        (None, None) => {
            json!({"annotations": [], "content": call.said(), "refusal": null, "role": "assistant"})
        }
    };
    let choices = (0..call.choices).map(|index| {
        json!({
            "content_filter_results": harmless(),
            "finish_reason": finish_reason(call),
            "index": index,
            "logprobs": null,
            "message": message,
        })
    });
    let mut answer = json!({
        "choices": choices.collect::<Vec<_>>(),
        "created": heading.created,
        "id": id(heading),
        "model": heading.model,
        "object": "chat.completion",
        "prompt_filter_results": prompt_filter_results(),
        "system_fingerprint": FINGERPRINT,
    });
    if let (Value::Object(fields), Some(usage)) = (&mut answer, heading.usage) {
        fields.insert("usage".to_owned(), usage.completion());
    }
    answer
}

/// The answer as a stream: filter results, roles, text, ends, usage where asked for, and the mark of the end.
pub(crate) fn events(call: &Call, heading: &Heading) -> Events {
    let mut filter = json!({
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": prompt_filter_results(),
    });
    if let (Value::Object(fields), true) = (&mut filter, call.include_usage) {
        fields.insert("usage".to_owned(), Value::Null);
    }
    let opening =
        (0..call.choices).map(|index| chunk(call, heading, &choice(index, &opening(call, heading, index))));
    let templates = (0..call.choices).map(|index| {
        let mut choice = choice(index, &delta(call, heading));
        choice["content_filter_results"] = harmless();
        Template::new(&chunk(call, heading, &choice))
    });
    let closing = (0..call.choices).map(|index| {
        let mut choice = choice(index, &json!({}));
        choice["finish_reason"] = finish_reason(call).into();
        chunk(call, heading, &choice)
    });
    let usage = heading.usage.filter(|_| call.include_usage).map(|usage| {
        let mut last = chunk(call, heading, &Value::Null);
        last["choices"] = json!([]);
        last["usage"] = usage.completion();
        last
    });
    let before: Vec<_> = std::iter::once(filter).chain(opening).map(Event::unnamed).collect();
    let after: Vec<_> = closing.chain(usage).map(Event::unnamed).collect();
    Events::new(
        before
            .into_iter()
            .chain(Events::thoughts(call, heading))
            .chain(Events::deltas(call, heading, None, templates.collect()))
            .chain(after)
            .chain(std::iter::once(Event::unnamed("[DONE]"))),
    )
}

fn chunk(call: &Call, heading: &Heading, choice: &Value) -> Value {
    let mut chunk = json!({
        "choices": [choice],
        "created": heading.created,
        "id": id(heading),
        "model": heading.model,
        "object": "chat.completion.chunk",
        "system_fingerprint": FINGERPRINT,
    });
    if call.include_usage {
        chunk["usage"] = Value::Null;
    }
    chunk
}

fn choice(index: u64, delta: &Value) -> Value {
    json!({"content_filter_results": {}, "delta": delta, "finish_reason": null, "index": index, "logprobs": null})
}

/// What each event says, with a gap for its text.
fn delta(call: &Call, heading: &Heading) -> Value {
    match (&heading.unknown_delta, &call.tool) {
        (Some(field), _) => json!({field: Template::GAP}),
        (None, Some(_)) => json!({"tool_calls": [{"function": {"arguments": Template::GAP}, "index": 0}]}),
        (None, None) => json!({"content": Template::GAP}),
    }
}

fn opening(call: &Call, heading: &Heading, index: u64) -> Value {
    match &call.tool {
        Some(name) => json!({
            "content": null,
            "refusal": null,
            "role": "assistant",
            "tool_calls": [{
                "function": {"arguments": "", "name": name},
                "id": tool_id(heading, index),
                "index": 0,
                "type": "function",
            }],
        }),
        None => json!({"content": "", "refusal": null, "role": "assistant"}),
    }
}

fn finish_reason(call: &Call) -> &'static str {
    match (call.cut, &call.tool) {
        (true, _) => "length",
        (false, Some(_)) => "tool_calls",
        (false, None) => "stop",
    }
}

fn id(heading: &Heading) -> String {
    format!("chatcmpl-{}", heading.id)
}

fn tool_id(heading: &Heading, index: u64) -> String {
    format!("call_{}{index}", heading.id)
}
