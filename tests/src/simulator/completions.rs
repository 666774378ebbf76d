//! Completions of the older kind, whole and streamed.

use serde_json::{Value, json};

use super::answer::{Event, Events, Heading, Template, harmless, prompt_filter_results};
use super::call::Call;

/// The answer in one piece.
pub(crate) fn whole(call: &Call, heading: &Heading) -> Value {
    let choices = (0..call.choices).map(|index| choice(call, index, &call.said(), true));
    let mut answer = body(heading, choices.collect());
    answer["prompt_filter_results"] = prompt_filter_results();
    if let Some(usage) = heading.usage {
        answer["usage"] = usage.completion();
    }
    answer
}

/// The answer as a stream.
pub(crate) fn events(call: &Call, heading: &Heading) -> Events {
    let chunk = |choices| {
        let mut chunk = body(heading, choices);
        if call.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let mut filter = chunk(Vec::new());
    filter["prompt_filter_results"] = prompt_filter_results();
    let templates = (0..call.choices)
        .map(|index| Template::new(&chunk(vec![choice(call, index, Template::GAP, false)])))
        .collect();
    let closing = (0..call.choices).map(|index| chunk(vec![choice(call, index, "", true)]));
    let usage = heading.usage.filter(|_| call.include_usage).map(|usage| {
        let mut last = chunk(Vec::new());
        last["usage"] = usage.completion();
        last
    });
    let after: Vec<_> = closing.chain(usage).map(Event::unnamed).collect();
    Events::new(
        std::iter::once(Event::unnamed(filter))
            .chain(Events::deltas(call, heading, None, templates))
            .chain(after)
            .chain(std::iter::once(Event::unnamed("[DONE]"))),
    )
}

fn body(heading: &Heading, choices: Vec<Value>) -> Value {
    json!({
        "choices": choices,
        "created": heading.created,
        "id": format!("cmpl-{}", heading.id),
        "model": heading.model,
        "object": "text_completion",
    })
}

fn choice(call: &Call, index: u64, text: &str, last: bool) -> Value {
    let reason = if call.cut { "length" } else { "stop" };
    json!({
        "content_filter_results": harmless(),
        "finish_reason": last.then_some(reason),
        "index": index,
        "logprobs": null,
        "text": text,
    })
}
