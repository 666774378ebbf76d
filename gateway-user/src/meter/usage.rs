//! Upstream's own figure for a call.

use serde::Deserialize;

use crate::units::Tokens;

/// The tokens of one call, as upstream reports them in `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The whole prompt, cached part included.
    pub input: Tokens,
    /// The part of `input` that upstream read from its cache; never more than it.
    pub cached_input: Tokens,
    /// The whole answer, reasoning included. None where there is no answer in tokens: embeddings.
    pub output: Tokens,
    /// The part of `output` that was reasoning, which is not in the answer's text; never more than it.
    pub reasoning: Tokens,
}

impl Usage {
    /// Whether the output is as large as that of a text of so many bytes may be, so that the two need not be compared: no text
    /// that is written has fewer tokens.
    #[must_use]
    pub const fn accounts_for(&self, bytes: u64) -> bool {
        bytes / MOST_BYTES_A_TOKEN <= self.output.get()
    }

    /// Reads a `usage` object in either of its shapes: `prompt_tokens` and `completion_tokens` of chat completions,
    /// completions and embeddings, or `input_tokens` and `output_tokens` of responses, with their details.
    ///
    /// Nothing when the prompt's figure is missing, or when a figure is not a whole number below 2³²: what is wrong in one
    /// place is trusted in none.
    #[must_use]
    pub fn parse(object: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(object).ok()?;
        let input = wire.prompt_tokens.or(wire.input_tokens)?;
        let output = wire.completion_tokens.or(wire.output_tokens).unwrap_or(0);
        let cached = wire
            .prompt_tokens_details
            .or(wire.input_tokens_details)
            .and_then(|details| details.cached_tokens);
        let reasoning = wire
            .completion_tokens_details
            .or(wire.output_tokens_details)
            .and_then(|details| details.reasoning_tokens);
        let tokens = |count: u32| Tokens::new(u64::from(count));
        Some(Self {
            input: tokens(input),
            cached_input: tokens(cached.unwrap_or(0).min(input)),
            output: tokens(output),
            reasoning: tokens(reasoning.unwrap_or(0).min(output)),
        })
    }

    /// Prompt and answer together.
    #[must_use]
    pub const fn total(&self) -> Tokens {
        self.input.saturating_add(self.output)
    }
}

/// `usage` as it is written. Fields may be missing, null, or joined by others.
#[derive(Deserialize)]
struct Wire {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u32>,
}

/// Bytes of text to a token: prose has four or five.
const MOST_BYTES_A_TOKEN: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, cached_input: u64, output: u64, reasoning: u64) -> Usage {
        Usage {
            input: Tokens::new(input),
            cached_input: Tokens::new(cached_input),
            output: Tokens::new(output),
            reasoning: Tokens::new(reasoning),
        }
    }

    #[test]
    fn both_shapes_are_read() {
        let chat = br#"{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
            "prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":0,"accepted_prediction_tokens":0}}"#;
        assert_eq!(Usage::parse(chat), Some(usage(19, 8, 10, 4)));
        let responses = br#"{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,
            "output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}"#;
        assert_eq!(Usage::parse(responses), Some(usage(36, 0, 87, 64)));
    }

    #[test]
    fn what_may_be_missing_may_be_missing() {
        assert_eq!(Usage::parse(br#"{"prompt_tokens":8,"total_tokens":8}"#), Some(usage(8, 0, 0, 0)));
        let nulls = br#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null,
            "completion_tokens_details":{"reasoning_tokens":null},"new":{"a":[1.5]}}"#;
        assert_eq!(Usage::parse(nulls), Some(usage(1, 0, 2, 0)));
    }

    #[test]
    fn a_part_is_never_more_than_the_whole() {
        let wrong = br#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":9},
            "completion_tokens_details":{"reasoning_tokens":9}}"#;
        assert_eq!(Usage::parse(wrong), Some(usage(1, 1, 2, 2)));
    }

    #[test]
    fn figures_that_make_no_sense_are_not_used() {
        for object in [
            r#"{"completion_tokens":1}"#,
            r#"{"prompt_tokens":-1,"completion_tokens":1}"#,
            r#"{"prompt_tokens":1.5,"completion_tokens":1}"#,
            r#"{"prompt_tokens":1,"completion_tokens":4294967296}"#,
            r#"{"prompt_tokens":1e3,"completion_tokens":1}"#,
            r#"{"prompt_tokens":"1","completion_tokens":1}"#,
            r#"{"prompt_tokens":1,"prompt_tokens":2}"#,
            r#"{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":-1}}"#,
            "{}",
            "null",
            "[1]",
            "",
        ] {
            assert_eq!(Usage::parse(object.as_bytes()), None, "{object}");
        }
    }
}
