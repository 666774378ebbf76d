//! Responses, whole and streamed: the events of OpenAI's streaming reference, and no `[DONE]` after them.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::answer::{Event, Events, Heading, Template};
use super::behaviour::Fault;
use super::call::Call;
use super::refusal::SERVER_ERROR;

/// The answer in one piece.
pub(crate) fn whole(call: &Call, heading: &Heading) -> Value {
    let status = if call.cut { "incomplete" } else { "completed" };
    let mut response = response(call, heading, status);
    let reasoning = (call.reasoning > 0).then(|| reasoning(heading));
    response["output"] =
        reasoning.into_iter().chain(std::iter::once(item(call, heading, &call.said(), status))).collect();
    if call.cut {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    if let Some(usage) = heading.usage {
        response["usage"] = usage.response();
    }
    response
}

/// The answer as a stream.
pub(crate) fn events(call: &Call, heading: &Heading, fault: Option<Fault>) -> Events {
    let events = Events::new(parts(call, heading));
    let events = match fault {
        Some(Fault::StreamError { after_chunks }) => {
            let data = json!({"code": "server_error", "message": SERVER_ERROR, "param": null});
            events.failing(after_chunks, Event::named("error", data))
        }
        Some(Fault::ResponseFailed { after_chunks }) => {
            let mut response = response(call, heading, "failed");
            response["error"] = json!({"code": "server_error", "message": SERVER_ERROR});
            events.failing(after_chunks, Event::named("response.failed", json!({"response": response})))
        }
        _ => events,
    };
    let mut sequence = 0;
    let numbered = events.map(move |event| {
        if event.data.is_empty() {
            return event;
        }
        let number = sequence;
        sequence += 1;
        event.with_number("sequence_number", number)
    });
    Events::new(numbered)
}

fn parts(call: &Call, heading: &Heading) -> impl Iterator<Item = Event> + Send + use<> {
    let said = call.said();
    let started = json!({"response": response(call, heading, "in_progress")});
    let mut before = vec![
        Event::named("response.created", started.clone()),
        Event::named("response.in_progress", started),
    ];
    let mut thought = Vec::new();
    if call.reasoning > 0 {
        let item = json!({"output_index": 0, "item": reasoning(heading)});
        before.push(Event::named("response.output_item.added", item.clone()));
        thought.push(Event::named("response.output_item.done", item));
    }
    let index = u64::from(call.reasoning > 0);
    let place = Place { id: item_id(call, heading), output: index };
    thought.push(Event::named(
        "response.output_item.added",
        json!({"output_index": index, "item": opened(call, heading)}),
    ));
    let Saying { opening, delta, template, ends } = saying(call, heading, &place);
    thought.extend(opening);
    let mut after = ends;
    let status = if call.cut { "incomplete" } else { "completed" };
    let item = json!({"output_index": index, "item": item(call, heading, &said, status)});
    after.push(Event::named("response.output_item.done", item));
    let end = if call.cut { "response.incomplete" } else { "response.completed" };
    after.push(Event::named(end, json!({"response": whole(call, heading)})));
    before
        .into_iter()
        .chain(Events::thoughts(call, heading))
        .chain(thought)
        .chain(Events::deltas(call, heading, Some(delta), vec![template]))
        .chain(after)
}

/// How the text of an item is said: what comes before its deltas, their name, and what comes after them.
struct Saying {
    opening: Option<Event>,
    delta: Cow<'static, str>,
    template: Template,
    ends: Vec<Event>,
}

fn saying(call: &Call, heading: &Heading, place: &Place) -> Saying {
    let said = call.said();
    let (delta, opening, ends): (Cow<'static, str>, _, _) = match (&heading.unknown_delta, &call.tool) {
        (Some(field), _) => {
            let done = Event::named(format!("response.{field}.done"), place.fields(json!({"text": said})));
            (format!("response.{field}.delta").into(), None, vec![done])
        }
        (None, Some(_)) => {
            let done = place.fields(json!({"arguments": said}));
            let done = Event::named("response.function_call_arguments.done", done);
            (FUNCTION_DELTA.into(), None, vec![done])
        }
        (None, None) => {
            let opening = place.content(json!({"part": part("")}));
            let done = place.content(json!({"text": said, "logprobs": []}));
            let part = place.content(json!({"part": part(&said)}));
            let ends = [("response.output_text.done", done), ("response.content_part.done", part)];
            let ends = ends.map(|(name, data)| Event::named(name, data));
            (TEXT_DELTA.into(), Some(Event::named("response.content_part.added", opening)), ends.into())
        }
    };
    let data = if delta == TEXT_DELTA {
        place.content(json!({"delta": Template::GAP, "logprobs": [], "type": delta}))
    } else {
        place.fields(json!({"delta": Template::GAP, "type": delta}))
    };
    Saying { opening, delta, template: Template::new(&data), ends }
}

/// Which item of the output an event is about.
struct Place {
    id: String,
    output: u64,
}

impl Place {
    fn fields(&self, mut data: Value) -> Value {
        data["item_id"] = Value::from(self.id.as_str());
        data["output_index"] = Value::from(self.output);
        data
    }

    fn content(&self, data: Value) -> Value {
        let mut data = self.fields(data);
        data["content_index"] = Value::from(0);
        data
    }
}

fn response(call: &Call, heading: &Heading, status: &str) -> Value {
    json!({
        "background": false,
        "created_at": heading.created,
        "error": null,
        "id": id(heading),
        "incomplete_details": null,
        "instructions": call.echoed("instructions", Value::Null),
        "max_output_tokens": call.echoed("max_output_tokens", Value::Null),
        "metadata": call.echoed("metadata", json!({})),
        "model": heading.model,
        "object": "response",
        "output": [],
        "parallel_tool_calls": call.echoed("parallel_tool_calls", json!(true)),
        "previous_response_id": call.echoed("previous_response_id", Value::Null),
        "reasoning": call.echoed("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": "default",
        "status": status,
        "store": call.echoed("store", json!(true)),
        "temperature": call.echoed("temperature", json!(1.0)),
        "text": call.echoed("text", json!({"format": {"type": "text"}})),
        "tool_choice": call.echoed("tool_choice", json!("auto")),
        "tools": call.echoed("tools", json!([])),
        "top_p": call.echoed("top_p", json!(1.0)),
        "truncation": call.echoed("truncation", json!("disabled")),
        "usage": null,
        "user": call.echoed("user", Value::Null),
    })
}

/// The response's id, by which a later call can go on from it.
pub(crate) fn id(heading: &Heading) -> String {
    format!("resp_{}", heading.id)
}

fn item(call: &Call, heading: &Heading, text: &str, status: &str) -> Value {
    match &call.tool {
        Some(name) => json!({
            "arguments": text,
            "call_id": format!("call_{}", heading.id),
            "id": item_id(call, heading),
            "name": name,
            "status": status,
            "type": "function_call",
        }),
        None => json!({
            "content": [part(text)],
            "id": item_id(call, heading),
            "role": "assistant",
            "status": status,
            "type": "message",
        }),
    }
}

/// The item before it holds anything.
fn opened(call: &Call, heading: &Heading) -> Value {
    let mut item = item(call, heading, "", "in_progress");
    if call.tool.is_none() {
        item["content"] = json!([]);
    }
    item
}

fn part(text: &str) -> Value {
    json!({"annotations": [], "logprobs": [], "text": text, "type": "output_text"})
}

fn reasoning(heading: &Heading) -> Value {
    json!({"id": format!("rs_{}", heading.id), "summary": [], "type": "reasoning"})
}

fn item_id(call: &Call, heading: &Heading) -> String {
    let kind = if call.tool.is_some() { "fc" } else { "msg" };
    format!("{kind}_{}", heading.id)
}

const TEXT_DELTA: &str = "response.output_text.delta";
const FUNCTION_DELTA: &str = "response.function_call_arguments.delta";
