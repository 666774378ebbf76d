//! How long a prompt and an answer may be: the limit that a call names, and the model's own.

use serde_json::Value;

use super::behaviour::Behaviour;
use super::call::Rules;
use super::catalogue::{Kind, Model};
use super::fields::Fields;
use super::prompt;
use super::refusal::Refusal;
use super::route::Api;

/// The limit of an answer that a call names.
///
/// # Errors
/// When the model knows no limit by that name, or has less to give.
pub(crate) fn named(fields: Fields<'_>, rules: Rules, behaviour: &Behaviour) -> Result<Option<u64>, Refusal> {
    let limit = match rules.api {
        Api::Embeddings => None,
        // Without one, a completion is cut at 16 tokens.
        Api::Completions => Some(fields.number("max_tokens", 1)?.unwrap_or(16)),
        Api::Responses => fields.number("max_output_tokens", 16)?,
        Api::Chat => of_chat(fields, rules.model, behaviour)?,
    };
    match (limit, rules.model) {
        // No report of this refusal in Responses was found; it is worded like that of a limit below the minimum.
        (Some(limit), Some(model)) if limit > model.output && rules.api == Api::Responses => {
            Err(Refusal::above("max_output_tokens", model.output, limit))
        }
        (Some(limit), Some(model)) if limit > model.output => {
            Err(Refusal::limit_too_large(limit, model.output))
        }
        _ => Ok(limit),
    }
}

fn of_chat(fields: Fields<'_>, model: Option<Model>, behaviour: &Behaviour) -> Result<Option<u64>, Refusal> {
    let old = fields.number("max_tokens", 1)?;
    let new = fields.number("max_completion_tokens", 1)?;
    let kind = model.map(|model| model.kind);
    let thinks = kind == Some(Kind::Reasoning) || behaviour.reasoning_tokens > 0;
    match (old, new) {
        (Some(_), Some(_)) => Err(Refusal::invalid(
            "max_tokens",
            Some("invalid_parameter_combination"),
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        )),
        (Some(_), None) if thinks => Err(Refusal::invalid(
            "max_tokens",
            Some("unsupported_parameter"),
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        )),
        (None, Some(_)) if kind == Some(Kind::Old) => Err(Refusal::unrecognized("max_completion_tokens")),
        _ => Ok(new.or(old)),
    }
}

/// The most tokens that one answer gets: up to its limit, and to the end of the model's window.
///
/// # Errors
/// When the prompt does not fit into the window, or not together with the limit.
pub(crate) fn room(rules: Rules, prompt_tokens: u64, limit: Option<u64>) -> Result<u64, Refusal> {
    let asked = limit.unwrap_or(u64::MAX);
    let Some(model) = rules.model else { return Ok(asked) };
    let together = prompt_tokens.saturating_add(limit.unwrap_or(0));
    // Responses end where the window does.
    let refused = together > model.window && model.kind != Kind::Reasoning && rules.api != Api::Responses;
    if prompt_tokens > model.input || refused {
        return Err(Refusal::too_long(rules.api, model.input, prompt_tokens, limit.unwrap_or(0)));
    }
    Ok(asked.min(model.output).min(model.window - prompt_tokens))
}

/// Refuses inputs that an embedding model does not take: each has the window for itself.
pub(crate) fn check_inputs(input: &Value, model: Option<Model>) -> Result<(), Refusal> {
    let Some(model) = model else { return Ok(()) };
    let inputs = match input {
        Value::Array(items) if !items.iter().any(Value::is_number) => items.as_slice(),
        _ => std::slice::from_ref(input),
    };
    if inputs.len() > MAX_INPUTS {
        return Err(Refusal::too_many("input", MAX_INPUTS, inputs.len()));
    }
    match inputs.iter().map(prompt::texts).find(|&tokens| tokens > model.input) {
        Some(tokens) => Err(Refusal::too_long(Api::Embeddings, model.input, tokens, 0)),
        None => Ok(()),
    }
}

/// The most inputs of a call for embeddings (Microsoft's page of models, "Embeddings").
const MAX_INPUTS: usize = 2_048;
