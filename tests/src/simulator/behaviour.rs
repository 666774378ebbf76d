//! How a call is answered: set by the test that holds the simulator, or by the call itself.
//!
//! A call sets it with `sim:{…}` in its `user` field or at the start of its last text, where the braces hold any of
//! [`Behaviour`]'s fields as JSON. That is how a client in another process steers the simulator through a gateway.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the simulator answers a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The tokens that the model says before it stops by itself; the caller's cap may end it earlier.
    pub tokens: u64,
    /// The tokens that the model thinks before it says anything. They are billed, count against the cap and are
    /// not on the wire. More than none makes it a reasoning model, which refuses `max_tokens`.
    pub reasoning_tokens: u64,
    /// The part of the prompt that is reported as read from the cache; at most the whole prompt.
    pub cached_tokens: u64,
    /// Reports this instead of counting the prompt's tokens.
    pub prompt_tokens: Option<u64>,
    /// Tokens in each event of a stream; at least one.
    pub chunk_tokens: u64,
    /// Between the events that carry tokens. An answer in one piece takes as long as its stream would.
    #[serde(rename = "chunk_delay_ms", with = "milliseconds")]
    pub chunk_delay: Duration,
    /// From the request's last byte to the response head.
    #[serde(rename = "first_byte_delay_ms", with = "milliseconds")]
    pub first_byte_delay: Duration,
    /// How the lines of a stream end.
    pub framing: Framing,
    /// Writes each event of a stream in pieces of this many bytes, each flushed on its own.
    pub split_bytes: Option<usize>,
    /// Begins a stream with a comment line.
    pub comment: bool,
    /// Adds `sent_unix_ns`, the wall clock as an event is handed to the socket, to each event that carries tokens.
    pub stamp: bool,
    /// Calls the first of the caller's tools; so does a `tool_choice` that demands one.
    pub tool_call: bool,
    /// What the answer reports as its usage.
    pub usage: UsageReport,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// The model named in answers; by default the deployment's, else one that fits the API.
    pub model: Option<String>,
    /// Writes the mark of a stream's end as `[DONE]` and a blank, as Microsoft's sample of a stream has it.
    pub done_blank: bool,
    /// The content type of a stream, in place of `text/event-stream`; an empty one leaves the header out.
    pub content_type: Option<String>,
    /// Compresses answers with gzip, whatever the caller accepts.
    pub gzip: bool,
    /// Says the text in this field of a chat's `delta`, or in events of this name of a Responses stream, which no
    /// documentation knows: `reasoning`, `thinking`.
    pub unknown_delta: Option<String>,
    /// Tokens of a stream that a content filter looks at together: it holds back what was generated until it has as
    /// many, or the stream ends.
    pub flush_tokens: Option<u64>,
}

/// How the lines of an event stream end; all three are allowed (WHATWG HTML, 9.2.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A line feed, as Azure sends.
    #[default]
    Lf,
    /// A carriage return and a line feed.
    Crlf,
    /// A carriage return.
    Cr,
}

/// What an answer reports as its usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageReport {
    /// What was really used.
    #[default]
    Right,
    /// Nothing, even where the caller asked for it.
    Missing,
    /// These figures, whatever was used.
    Wrong {
        /// Reported as the prompt's tokens.
        input: u64,
        /// Reported as the answer's tokens.
        output: u64,
    },
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// 429, with `retry-after-ms` and `retry-after`.
    RateLimited {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// 400: the content filter refused the prompt, which was processed and is billed.
    ContentFilter,
    /// 404: no such deployment.
    DeploymentNotFound,
    /// 401: the token is valid, and its principal has no role that allows the call.
    MissingRole,
    /// 500.
    ServerError,
    /// 503.
    Unavailable,
    /// A TCP reset after this many events with tokens; after none, no response head either. An answer in one piece is
    /// one event, and is reset half-way.
    Reset {
        /// Events with tokens that pass first.
        after_chunks: u64,
    },
    /// The connection is closed in order, but before the response ended. Counted as for [`Fault::Reset`].
    Truncated {
        /// Events with tokens that pass first.
        after_chunks: u64,
    },
    /// The rest never comes, and the connection stays open. Counted as for [`Fault::Reset`].
    Stall {
        /// Events with tokens that pass first.
        after_chunks: u64,
    },
    /// A stream that ends in order, but with an error after this many events with tokens: in chat and completions an
    /// event that holds an `error`, in Responses an event of the type `error`. Without a stream it is a 500.
    StreamError {
        /// Events with tokens that pass first.
        after_chunks: u64,
    },
    /// As [`Fault::StreamError`], but a Responses stream ends with `response.failed`, without usage.
    ResponseFailed {
        /// Events with tokens that pass first.
        after_chunks: u64,
    },
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tokens: 16,
            reasoning_tokens: 0,
            cached_tokens: 0,
            prompt_tokens: None,
            chunk_tokens: 1,
            chunk_delay: Duration::ZERO,
            first_byte_delay: Duration::ZERO,
            framing: Framing::Lf,
            split_bytes: None,
            comment: false,
            stamp: false,
            tool_call: false,
            usage: UsageReport::Right,
            fault: None,
            model: None,
            done_blank: false,
            content_type: None,
            gzip: false,
            unknown_delta: None,
            flush_tokens: None,
        }
    }
}

impl Behaviour {
    /// This behaviour with the fields that `text` sets, when it is a `sim:{…}` instruction.
    ///
    /// # Errors
    /// When it is one that does not parse; tests should hear of a mistyped field.
    pub(crate) fn steered_by(self, text: &str) -> Result<Self, serde_json::Error> {
        let Some(instruction) = text.trim_start().strip_prefix("sim:") else { return Ok(self) };
        // Words may follow the braces, so that prompts can be of any length.
        let mut values = serde_json::Deserializer::from_str(instruction).into_iter::<Value>();
        let Some(Value::Object(fields)) = values.next().transpose()? else {
            return Err(serde::de::Error::custom("sim: is followed by a JSON object"));
        };
        let mut merged = serde_json::to_value(self)?;
        if let Value::Object(merged) = &mut merged {
            merged.extend(fields);
        }
        serde_json::from_value(merged)
    }
}

impl Framing {
    /// One line's end.
    pub(crate) const fn line_end(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::Crlf => "\r\n",
            Self::Cr => "\r",
        }
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(delay: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_sets_the_fields_it_names_and_no_others() {
        let text = r#"sim:{"tokens":50,"chunk_delay_ms":20,"fault":{"reset":{"after_chunks":3}}} and words"#;
        let steered = Behaviour { chunk_tokens: 4, ..Behaviour::default() }.steered_by(text).unwrap();
        let expected = Behaviour {
            tokens: 50,
            chunk_tokens: 4,
            chunk_delay: Duration::from_millis(20),
            fault: Some(Fault::Reset { after_chunks: 3 }),
            ..Behaviour::default()
        };
        assert_eq!(steered, expected);
    }

    #[test]
    fn a_mistyped_field_is_an_error_and_other_text_is_none() {
        assert!(Behaviour::default().steered_by(r#"sim:{"token":50}"#).is_err());
        assert!(Behaviour::default().steered_by("sim:50").is_err());
        assert_eq!(Behaviour::default().steered_by("hello").unwrap(), Behaviour::default());
    }
}
