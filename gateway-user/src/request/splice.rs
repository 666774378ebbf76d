//! Changes to a body that leave every other byte where it was.

use std::ops::Range;

use bytes::Bytes;

use super::envelope::{CapKey, Envelope, StreamOptions};
use crate::names::DeploymentName;

/// What takes the place of a part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; empty to insert.
    pub at: Range<usize>,
    /// By what.
    pub with: Bytes,
}

impl Edit {
    /// Makes the stream carry its usage, whatever the caller said of it; `None` where it does already.
    #[must_use]
    pub fn include_usage(envelope: &Envelope<'_>) -> Option<Self> {
        let inserted = |at: usize, with: &'static str| {
            Some(Self { at: at..at, with: Bytes::from_static(with.as_bytes()) })
        };
        match &envelope.stream_options {
            StreamOptions::Asked => None,
            StreamOptions::Absent if envelope.is_empty => {
                inserted(envelope.fields_start, r#""stream_options":{"include_usage":true}"#)
            }
            StreamOptions::Absent => {
                inserted(envelope.fields_start, r#""stream_options":{"include_usage":true},"#)
            }
            StreamOptions::Null(value) => {
                Some(Self { at: value.clone(), with: Bytes::from_static(br#"{"include_usage":true}"#) })
            }
            StreamOptions::Silent { fields_start, is_empty: true } => {
                inserted(*fields_start, r#""include_usage":true"#)
            }
            StreamOptions::Silent { fields_start, is_empty: false } => {
                inserted(*fields_start, r#""include_usage":true,"#)
            }
            StreamOptions::Declined(value) => {
                Some(Self { at: value.clone(), with: Bytes::from_static(b"true") })
            }
        }
    }

    /// Makes the body's `model` name a deployment; `None` where it has none or names it already.
    #[must_use]
    pub fn model(envelope: &Envelope<'_>, deployment: &DeploymentName) -> Option<Self> {
        let model = envelope.model.as_ref()?;
        (model.name.as_deref() != Some(deployment.as_str())).then(|| Self {
            at: model.value.clone(),
            // A deployment's name has no character that JSON escapes.
            with: Bytes::from(format!("\"{deployment}\"")),
        })
    }

    /// Limits each answer to `tokens`: in the one of `keys`, those that the API knows, that the caller limited it with, else
    /// in the first of them. `None` where the caller's own limit is as low, or the API knows none.
    #[must_use]
    pub fn cap(envelope: &Envelope<'_>, keys: &[CapKey], tokens: u64) -> Option<Self> {
        let present = envelope.named_cap(keys).map(|(named, _)| named).or_else(|| keys.first().copied())?;
        match &envelope.caps[present as usize] {
            Some(cap) if cap.tokens.is_some_and(|named| named <= tokens) => None,
            Some(cap) => Some(Self { at: cap.value.clone(), with: Bytes::from(tokens.to_string()) }),
            None => {
                let comma = if envelope.is_empty { "" } else { "," };
                let field = format!("\"{}\":{tokens}{comma}", present.as_str());
                Some(Self { at: envelope.fields_start..envelope.fields_start, with: Bytes::from(field) })
            }
        }
    }
}

/// A body with `edits` made, as parts to be sent one after the other. The edits must not overlap.
#[must_use]
pub fn splice(body: &Bytes, mut edits: Vec<Edit>) -> Vec<Bytes> {
    edits.sort_by_key(|edit| edit.at.start);
    let mut parts = Vec::with_capacity(2 * edits.len() + 1);
    let mut done = 0;
    for Edit { at, with } in edits {
        parts.push(body.slice(done..at.start));
        parts.push(with);
        done = at.end;
    }
    parts.push(body.slice(done..));
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CHAT: [CapKey; 2] = [CapKey::MaxCompletionTokens, CapKey::MaxTokens];

    fn with_edits(body: &str, edits: impl Fn(&Envelope<'_>) -> Vec<Option<Edit>>) -> Value {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let envelope = Envelope::parse(&body).unwrap();
        let parts = splice(&body, edits(&envelope).into_iter().flatten().collect());
        serde_json::from_slice(&parts.concat()).unwrap()
    }

    #[test]
    fn usage_is_asked_for_whatever_the_caller_said_of_it() {
        for (body, expected) in [
            (r"{}", json!({"stream_options": {"include_usage": true}})),
            (r#" { "a":1}"#, json!({"a": 1, "stream_options": {"include_usage": true}})),
            (r#"{"stream_options":null}"#, json!({"stream_options": {"include_usage": true}})),
            (r#"{"stream_options": { }}"#, json!({"stream_options": {"include_usage": true}})),
            (
                r#"{"stream_options":{"include_obfuscation":false}}"#,
                json!({"stream_options": {"include_usage": true, "include_obfuscation": false}}),
            ),
            (
                r#"{"stream_options":{"include_usage": false ,"x":[1]}}"#,
                json!({"stream_options": {"include_usage": true, "x": [1]}}),
            ),
            (
                r#"{"stream_options":{"include_usage":true}}"#,
                json!({"stream_options": {"include_usage": true}}),
            ),
        ] {
            assert_eq!(with_edits(body, |envelope| vec![Edit::include_usage(envelope)]), expected, "{body}");
        }
    }

    #[test]
    fn a_cap_lowers_the_callers_own_and_never_raises_it() {
        for (body, expected) in [
            (r#"{"a":1}"#, json!({"a": 1, "max_completion_tokens": 50})),
            (r#"{"max_tokens":100}"#, json!({"max_tokens": 50})),
            (r#"{"max_tokens":7}"#, json!({"max_tokens": 7})),
            (r#"{"max_completion_tokens":null,"a":1}"#, json!({"max_completion_tokens": 50, "a": 1})),
            (r#"{"max_tokens":null}"#, json!({"max_tokens": null, "max_completion_tokens": 50})),
            (r#"{"max_output_tokens":7}"#, json!({"max_output_tokens": 7, "max_completion_tokens": 50})),
        ] {
            let capped = with_edits(body, |envelope| vec![Edit::cap(envelope, &CHAT, 50)]);
            assert_eq!(capped, expected, "{body}");
        }
    }

    #[test]
    fn both_edits_fit_beside_each_other() {
        let both = with_edits(r#"{"messages":[]}"#, |envelope| {
            vec![Edit::include_usage(envelope), Edit::cap(envelope, &[CapKey::MaxTokens], 5)]
        });
        assert_eq!(both, json!({"messages": [], "max_tokens": 5, "stream_options": {"include_usage": true}}));
    }
}
