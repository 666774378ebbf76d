//! What a call used, as upstream reports it.

use serde::Deserialize;

use crate::units::Tokens;

/// The tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, cached ones included.
    pub input: Tokens,
    /// Prompt tokens that upstream read from its cache; never more than `input`.
    pub cached_input: Tokens,
    /// Of the answer, reasoning included.
    pub output: Tokens,
    /// Output tokens spent on reasoning; never more than `output`.
    pub reasoning: Tokens,
}

impl Usage {
    /// Reads a `usage` object: `prompt_tokens` and `completion_tokens` of the completions and embeddings APIs, or
    /// `input_tokens` and `output_tokens` of the Responses API, each with its details. `None` where there is no count
    /// of the prompt or any count is not a number of tokens.
    ///
    /// Source: the OpenAI API reference, "The chat completion object" and "The response object".
    #[must_use]
    pub fn parse(object: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(object).ok()?;
        let input = Tokens::new(wire.prompt_tokens.or(wire.input_tokens)?);
        let output = Tokens::new(wire.completion_tokens.or(wire.output_tokens).unwrap_or_default());
        let input_details = wire.prompt_tokens_details.or(wire.input_tokens_details).unwrap_or_default();
        let output_details =
            wire.completion_tokens_details.or(wire.output_tokens_details).unwrap_or_default();
        Some(Self {
            input,
            cached_input: Tokens::new(input_details.cached_tokens.unwrap_or_default()).min(input),
            output,
            reasoning: Tokens::new(output_details.reasoning_tokens.unwrap_or_default()).min(output),
        })
    }

    /// Prompt and answer together.
    #[must_use]
    pub const fn total(&self) -> Tokens {
        self.input.saturating_add(self.output)
    }
}

#[derive(Deserialize)]
struct Wire {
    prompt_tokens: Option<u64>,
    input_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

#[derive(Default, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}
