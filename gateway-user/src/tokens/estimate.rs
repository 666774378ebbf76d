//! A prompt's tokens by the published rules of each API.

use serde_json::value::RawValue;

use super::basis::{Basis, REFERENCE_TOKENS};
use super::count::Count;
use super::effort::{Effort, Tokenising};
use super::prompt_kind::PromptKind;
use super::tools::Declared;
use super::{messages, raw, tools};
use crate::api::Api;
use crate::compute::Stop;
use crate::model::Model;
use crate::units::Tokens;

/// What a prompt will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The prompt's tokens.
    pub tokens: Tokens,
    /// What they rest on.
    pub basis: Basis,
    /// What kind of request it is, for a `limits::Correction`.
    pub kind: PromptKind,
}

impl Estimate {
    /// A body of which nothing is known: no text has fewer bytes than tokens.
    #[must_use]
    pub fn of_bytes(api: Api, body: &[u8]) -> Self {
        Self { tokens: Tokens::from_bytes(body.len()), basis: Basis::Bound, kind: PromptKind::of(api) }
    }

    /// Whether the tokens are more than the prompt is expected to cost.
    #[must_use]
    pub const fn is_bound(&self) -> bool {
        matches!(self.basis, Basis::Bound)
    }

    /// Whether the prompt may cost any amount more: it names what it does not hold.
    #[must_use]
    pub const fn is_boundless(&self) -> bool {
        matches!(self.basis, Basis::Stored | Basis::Kept)
    }

    /// Whether it names what upstream keeps for all tenants of its account together.
    #[must_use]
    pub const fn is_kept_upstream(&self) -> bool {
        matches!(self.basis, Basis::Kept)
    }
}

/// What came of counting a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// All of it was counted.
    Whole(Estimate),
    /// It has more tokens than were asked for: about so many.
    Beyond(Estimate),
}

/// Estimates what the prompt of a request body costs.
///
/// Never fails: what cannot be read counts as its bytes, of which no text has fewer than tokens. Takes time in proportion
/// to the body (see [`count_text`](super::count_text)), so that long bodies belong on a thread of their own.
#[must_use]
pub fn estimate_prompt(api: Api, model: &Model, body: &[u8]) -> Estimate {
    match count_prompt(api, model, body, Tokens::MAX, Stop::default()) {
        Counted::Whole(estimate) | Counted::Beyond(estimate) => estimate,
    }
}

/// The same, no further than to where it is known to be more than `most`, which takes a few thousand bytes of text, or to
/// where nobody waits for it any more.
pub(crate) fn count_prompt(api: Api, model: &Model, body: &[u8], most: Tokens, stop: Stop) -> Counted {
    let Some(count) = walk(api, model, body, Effort::Tokens(Tokenising::new(most, stop))) else {
        return Counted::Whole(Estimate::of_bytes(api, body));
    };
    let estimate = estimate_of(&count, body);
    let left_out = match &count.effort {
        Effort::Bytes => None,
        Effort::Tokens(tokenising) => tokenising.left_out(),
    };
    left_out.map_or(Counted::Whole(estimate), |left_out| {
        let least = most.saturating_add(Tokens::new(1));
        Counted::Beyond(Estimate { tokens: estimate.tokens.saturating_add(left_out).max(least), ..estimate })
    })
}

/// The most that the prompt of a request body can cost: its texts at their bytes, and all else by the published rules.
#[must_use]
pub fn bound_prompt(api: Api, model: &Model, body: &[u8]) -> Estimate {
    let count = walk(api, model, body, Effort::Bytes);
    count.map_or_else(|| Estimate::of_bytes(api, body), |count| estimate_of(&count, body))
}

/// Adds up a body; nothing for what is no JSON object.
fn walk(api: Api, model: &Model, body: &[u8], effort: Effort) -> Option<Count> {
    let request = raw::document(body).filter(|request| raw::is_object(request))?;
    let mut count = Count::new(model, api, effort);
    match api {
        Api::ChatCompletions => chat(&mut count, request),
        Api::Completions => count.entries(request, |count, key, value| match key {
            "prompt" | "suffix" => inputs(count, value),
            _ => {}
        }),
        Api::Embeddings => count.entries(request, |count, key, value| {
            if key == "input" {
                inputs(count, value);
            }
        }),
        Api::Responses => responses(&mut count, request),
    }
    count.finish_reasoning();
    Some(count)
}

fn estimate_of(count: &Count, body: &[u8]) -> Estimate {
    let kind = if count.basis() >= Basis::Stored { PromptKind::Stored } else { count.kind };
    if count.whole() {
        Estimate { tokens: count.total(), basis: count.basis(), kind }
    } else {
        let bytes = Tokens::from_bytes(body.len());
        Estimate { tokens: count.total().max(bytes), basis: count.basis().max(Basis::Bound), kind }
    }
}

fn chat(count: &mut Count, request: &RawValue) {
    count.entries(request, |count, key, value| match key {
        "messages" => messages::conversation(count, value),
        "tools" | "functions" => tools::tools(count, value, Declared::Apart),
        "tool_choice" | "function_call" => tools::choice(count, value),
        "response_format" => tools::response_format(count, value),
        // What upstream finds joins the prompt: on the web, or by Azure's "on your data".
        "web_search_options" | "data_sources" | "dataSources" => refer(count, value),
        _ => {}
    });
}

fn responses(count: &mut Count, request: &RawValue) {
    count.entries(request, |count, key, value| match key {
        "input" if value.get() != "null" => messages::conversation(count, value),
        "instructions" if value.get() != "null" => messages::plain(count, value),
        "tools" => tools::tools(count, value, Declared::WithInstructions),
        "tool_choice" => tools::choice(count, value),
        "reasoning" if raw::is_object(value) => count.entries(value, |count, key, value| match key {
            "mode" if raw::text(value).as_deref() == Some("pro") => count.assumed(PRO, Basis::Allowance),
            "context" => {
                count.reasoning.shows_earlier = match raw::text(value).as_deref() {
                    Some("all_turns") => Some(true),
                    Some("current_turn") => Some(false),
                    _ => None,
                };
            }
            _ => {}
        }),
        "text" => count.entries(value, |count, key, value| {
            if key == "format" {
                tools::format(count, value);
            }
        }),
        "previous_response_id" | "conversation" => refer(count, value),
        "prompt" if raw::is_object(value) => refer(count, value),
        _ => {}
    });
}

/// A text, several, a list of token ids, or several lists.
fn inputs(count: &mut Count, value: &RawValue) {
    if !raw::is_array(value) {
        return count.value(value);
    }
    count.elements(value, |count, input| {
        if raw::is_array(input) {
            count.elements(input, |count, _token_id| count.fixed(1));
        } else if raw::text(input).is_some() {
            count.value(input);
        } else {
            count.fixed(1);
        }
    });
}

fn refer(count: &mut Count, value: &RawValue) {
    if value.get() != "null" {
        count.assumed(REFERENCE_TOKENS, Basis::Stored);
    }
}

/// What `reasoning.mode: "pro"` adds to a prompt: the attempts that upstream makes before it answers. Nobody publishes a
/// figure; recorded answers count about 1,500 for a short question.
const PRO: Tokens = Tokens::new(2048);

#[cfg(test)]
mod bounded_tests;
#[cfg(test)]
mod tests;
