//! What the answers of all APIs are made of: their heading, their usage, and the events of their streams.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::behaviour::{Behaviour, UsageReport};
use super::call::Call;

/// What every part of an answer repeats.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    /// 32 hexadecimal digits of this answer alone.
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    /// What is reported as used; nothing where nothing shall be.
    pub(crate) usage: Option<Usage>,
    /// Tokens in an event.
    pub(crate) chunk_tokens: u64,
    /// Where the text is said instead of where it belongs.
    pub(crate) unknown_delta: Option<String>,
}

/// Reported token counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

/// An event of a stream, not yet framed.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The `event` field.
    pub(crate) name: Option<Cow<'static, str>>,
    /// The `data` field; an empty one is not sent, and stands for tokens that are only thought.
    pub(crate) data: String,
    /// Tokens generated for it.
    pub(crate) tokens: u64,
}

/// The events of a stream, made as they are asked for.
pub(crate) struct Events(Box<dyn Iterator<Item = Event> + Send>);

/// A JSON text with a gap for a string.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    before: String,
    after: String,
}

impl Heading {
    pub(crate) fn new(id: String, call: &Call, behaviour: &Behaviour) -> Self {
        let right = Usage {
            input: call.prompt_tokens,
            cached: behaviour.cached_tokens.min(call.prompt_tokens),
            output: call.output_tokens(),
            reasoning: call.candidates * call.reasoning,
        };
        let usage = match behaviour.usage {
            UsageReport::Right => Some(right),
            UsageReport::Missing => None,
            UsageReport::Wrong { input, output } => Some(Usage { input, output, cached: 0, reasoning: 0 }),
        };
        Self {
            id,
            created: unix_time().as_secs(),
            model: behaviour.model.clone().unwrap_or_else(|| call.api.model().to_owned()),
            usage,
            chunk_tokens: behaviour.chunk_tokens.max(1),
            unknown_delta: behaviour.unknown_delta.clone(),
        }
    }
}

impl Usage {
    /// As chat and completions report it.
    pub(crate) fn completion(&self) -> Value {
        json!({
            "completion_tokens": self.output,
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0,
                "audio_tokens": 0,
                "reasoning_tokens": self.reasoning,
                "rejected_prediction_tokens": 0,
            },
            "prompt_tokens": self.input,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": self.cached},
            "total_tokens": self.input + self.output,
        })
    }

    /// As responses report it.
    pub(crate) fn response(&self) -> Value {
        json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        })
    }
}

impl Event {
    pub(crate) fn unnamed(data: impl ToString) -> Self {
        Self { name: None, data: data.to_string(), tokens: 0 }
    }

    /// An event of the Responses API: its name is also in the data.
    pub(crate) fn named(name: impl Into<Cow<'static, str>>, mut data: Value) -> Self {
        let name = name.into();
        if let Value::Object(fields) = &mut data {
            fields.insert("type".to_owned(), Value::from(&*name));
        }
        Self { name: Some(name), data: data.to_string(), tokens: 0 }
    }

    /// The event with a number added to its data.
    pub(crate) fn with_number(mut self, key: &str, number: u128) -> Self {
        if let Some(rest) = self.data.strip_prefix('{') {
            self.data = format!(r#"{{"{key}":{number},{rest}"#);
        }
        self
    }
}

impl Events {
    pub(crate) fn new(events: impl Iterator<Item = Event> + Send + 'static) -> Self {
        Self(Box::new(events))
    }

    /// These events until `after_chunks` of them carried tokens on the wire, then the failure, and nothing after it.
    /// What precedes the first token passes in any case.
    pub(crate) fn failing(mut self, after_chunks: u64, failure: Event) -> Self {
        let mut failure = Some(failure);
        let mut chunks = 0;
        Self::new(std::iter::from_fn(move || {
            failure.as_ref()?;
            let event = self.next()?;
            if chunks >= after_chunks && (chunks > 0 || event.tokens > 0) {
                return failure.take();
            }
            chunks += u64::from(event.tokens > 0 && !event.data.is_empty());
            Some(event)
        }))
    }

    /// The tokens that are thought before the first is said.
    pub(crate) fn thoughts(call: &Call, heading: &Heading) -> impl Iterator<Item = Event> + Send + use<> {
        let (thoughts, step, choices) = (call.reasoning, heading.chunk_tokens, call.candidates);
        starts(thoughts, step).map(move |start| Event {
            name: None,
            data: String::new(),
            tokens: step.min(thoughts - start) * choices,
        })
    }

    /// The tokens that are said: each step for every choice in turn.
    pub(crate) fn deltas(
        call: &Call,
        heading: &Heading,
        name: Option<Cow<'static, str>>,
        templates: Vec<Template>,
    ) -> impl Iterator<Item = Event> + Send + use<> {
        let (text, said, step) = (call.text.clone(), call.said, heading.chunk_tokens);
        starts(said, step).flat_map(move |start| {
            let end = said.min(start.saturating_add(step));
            let piece = text.between(start, end);
            let events = templates.iter().map(|template| Event {
                name: name.clone(),
                data: template.filled(&piece),
                tokens: end - start,
            });
            events.collect::<Vec<_>>()
        })
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.next()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Template {
    /// The string that stands for the gap in the value of a template.
    pub(crate) const GAP: &'static str = "\u{fffc}";

    /// A template of a value with one [`Template::GAP`].
    pub(crate) fn new(value: &Value) -> Self {
        let text = value.to_string();
        let (before, after) = text.split_once(QUOTED_GAP).unwrap_or((&text, ""));
        Self { before: before.to_owned(), after: after.to_owned() }
    }

    fn filled(&self, text: &str) -> String {
        format!("{}{}{}", self.before, Value::from(text), self.after)
    }
}

/// What the content filter says of harmless content.
pub(crate) fn harmless() -> Value {
    let safe = json!({"filtered": false, "severity": "safe"});
    json!({"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe})
}

/// What the content filter says of a prompt.
pub(crate) fn prompt_filter_results() -> Value {
    let mut results = harmless();
    if let Value::Object(results) = &mut results {
        results.insert("jailbreak".to_owned(), json!({"detected": false, "filtered": false}));
    }
    json!([{"content_filter_results": results, "prompt_index": 0}])
}

/// The system fingerprint of every answer.
pub(crate) const FINGERPRINT: &str = "fp_2f406b9113";

/// The wall clock.
pub(crate) fn unix_time() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn starts(end: u64, step: u64) -> impl Iterator<Item = u64> + Send {
    std::iter::successors(Some(0), move |start: &u64| start.checked_add(step))
        .take_while(move |&start| start < end)
}

const QUOTED_GAP: &str = "\"\u{fffc}\"";
