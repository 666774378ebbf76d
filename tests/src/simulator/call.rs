//! A call as the simulator understands it: the body's fields that change the answer, and what Azure refuses.

use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::catalogue::Model;
use super::fields::Fields;
use super::limits;
use super::prompt;
use super::refusal::Refusal;
use super::route::{Api, Version};
use super::words::Text;

/// A call that will be answered.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) api: Api,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) prompt_tokens: u64,
    /// The limit of one answer that the call names, or none.
    pub(crate) limit: u64,
    /// How many answers go out.
    pub(crate) choices: u64,
    /// How many answers are generated, and billed: more than go out with `best_of`.
    pub(crate) candidates: u64,
    /// The tokens of one answer that are thought.
    pub(crate) reasoning: u64,
    /// One answer's text, and how much of it the cap leaves.
    pub(crate) text: Text,
    pub(crate) said: u64,
    pub(crate) cut: bool,
    /// The function called instead of saying the text.
    pub(crate) tool: Option<String>,
    pub(crate) body: Value,
}

/// What a body is read by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) api: Api,
    pub(crate) version: Version,
    /// The deployment's, where it is known.
    pub(crate) model: Option<Model>,
}

/// The texts of a body in which a caller may steer the simulator.
pub(crate) fn steering(api: Api, body: &Value) -> impl Iterator<Item = &str> {
    let input = match api {
        Api::Chat => body.get("messages"),
        Api::Completions => body.get("prompt"),
        Api::Embeddings | Api::Responses => body.get("input"),
    };
    [body.get("user").and_then(Value::as_str), input.and_then(last_text)].into_iter().flatten()
}

fn last_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.iter().rev().find_map(last_text),
        Value::Object(fields) => fields.get("content").or_else(|| fields.get("text")).and_then(last_text),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

impl Call {
    /// Reads a body as Azure does.
    ///
    /// # Errors
    /// What Azure answers to a body that it cannot serve.
    pub(crate) fn read(rules: Rules, body: Value, behaviour: &Behaviour) -> Result<Self, Refusal> {
        let api = rules.api;
        let fields = Fields(&body);
        check_known(fields, rules.version)?;
        let limit = limits::named(fields, rules, behaviour)?;
        let (choices, candidates) = answers(fields, api)?;
        let stream = streamed(fields, candidates > choices)?;
        let tool = tool(fields, api, behaviour);
        let input = input(fields, api)?;
        let prompt_tokens = behaviour.prompt_tokens.unwrap_or_else(|| match api {
            Api::Chat => prompt::chat(&body),
            Api::Responses => prompt::response(&body),
            Api::Completions | Api::Embeddings => prompt::texts(input),
        });
        let cap = if api == Api::Embeddings {
            limits::check_inputs(input, rules.model)?;
            0
        } else {
            limits::room(rules, prompt_tokens, limit)?
        };
        let text = match tool {
            Some(_) => Text::arguments(behaviour.tokens),
            None => Text::Words(behaviour.tokens),
        };
        let text = if api == Api::Embeddings { Text::Words(0) } else { text };
        let thinks = matches!(api, Api::Chat | Api::Responses);
        let reasoning = if thinks { behaviour.reasoning_tokens.min(cap) } else { 0 };
        let said = text.len().min(cap - reasoning);
        let cut = reasoning < behaviour.reasoning_tokens && thinks || said < text.len();
        Ok(Self {
            api,
            stream: stream && api != Api::Embeddings,
            include_usage: body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
            prompt_tokens,
            limit: limit.unwrap_or(0),
            choices,
            candidates,
            reasoning,
            text,
            said,
            cut,
            tool,
            body,
        })
    }

    /// What counts against the deployment's quota.
    pub(crate) fn counted_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.candidates.saturating_mul(self.limit))
    }

    /// All tokens of all answers.
    pub(crate) fn output_tokens(&self) -> u64 {
        self.candidates.saturating_mul(self.reasoning + self.said)
    }

    /// What one answer says.
    pub(crate) fn said(&self) -> String {
        self.text.between(0, self.said)
    }

    /// A field of the request that the answer repeats.
    pub(crate) fn echoed(&self, key: &str, default: Value) -> Value {
        self.body.get(key).filter(|value| !value.is_null()).cloned().unwrap_or(default)
    }
}

/// Refuses what the version of the API does not know.
fn check_known(fields: Fields<'_>, version: Version) -> Result<(), Refusal> {
    let added = ["stream_options", "max_completion_tokens"];
    match added.into_iter().find(|key| fields.present(key).is_some()) {
        Some(key) if !version.since(SINCE_2024_09_01_PREVIEW) => Err(Refusal::unrecognized(key)),
        _ => Ok(()),
    }
}

/// Whether the answer is a stream.
fn streamed(fields: Fields<'_>, best_of: bool) -> Result<bool, Refusal> {
    let stream = fields.flag("stream")?;
    if fields.present("stream_options").is_some() && !stream {
        return Err(Refusal::invalid(
            "stream_options",
            None,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ));
    }
    if stream && best_of {
        return Err(Refusal::invalid("best_of", None, "Results of 'best_of' cannot be streamed."));
    }
    Ok(stream)
}

/// How many answers go out, and how many are generated.
fn answers(fields: Fields<'_>, api: Api) -> Result<(u64, u64), Refusal> {
    match api {
        Api::Embeddings | Api::Responses => Ok((1, 1)),
        Api::Chat => {
            let choices = fields.count("n")?.unwrap_or(1);
            Ok((choices, choices))
        }
        Api::Completions => {
            let choices = fields.count("n")?.unwrap_or(1);
            let best_of = fields.count("best_of")?.unwrap_or(choices);
            if best_of < choices {
                return Err(Refusal::invalid("best_of", None, "best_of must be greater than or equal to n."));
            }
            let prompts = match fields.present("prompt") {
                Some(Value::Array(items)) if items.iter().all(|item| !item.is_number()) => items.len() as u64,
                _ => 1,
            };
            Ok((choices * prompts, best_of * prompts))
        }
    }
}

/// What the model reads.
fn input(fields: Fields<'_>, api: Api) -> Result<&Value, Refusal> {
    match api {
        Api::Chat => fields.required("messages", Value::is_array),
        Api::Completions => fields.required("prompt", |prompt| prompt.is_string() || prompt.is_array()),
        Api::Embeddings | Api::Responses => {
            fields.required("input", |input| input.is_string() || input.is_array())
        }
    }
}

/// The function that is called instead of saying something.
fn tool(fields: Fields<'_>, api: Api, behaviour: &Behaviour) -> Option<String> {
    let tools = match api {
        Api::Chat | Api::Responses => fields.present("tools")?.as_array()?,
        Api::Completions | Api::Embeddings => return None,
    };
    let name = |tool: &Value| {
        let name = tool.pointer("/function/name").or_else(|| tool.get("name"));
        name.and_then(Value::as_str).map(str::to_owned)
    };
    match fields.present("tool_choice") {
        Some(choice @ Value::Object(_)) => name(choice),
        Some(choice) if *choice == json!("required") => tools.iter().find_map(name),
        _ if behaviour.tool_call => tools.iter().find_map(name),
        _ => None,
    }
}

/// The version that brought `max_completion_tokens` and `stream_options`: Microsoft's page on the lifecycle of API
/// versions, "Changes between 2024-09-01-preview and 2024-08-01-preview". The next stable one, 2024-10-21, has both.
const SINCE_2024_09_01_PREVIEW: u32 = 20_240_901;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(api: Api) -> Rules {
        Rules { api, version: Version::V1, model: None }
    }

    #[test]
    fn reasoning_comes_out_of_the_cap_first() {
        let behaviour = Behaviour { reasoning_tokens: 30, tokens: 30, ..Behaviour::default() };
        let body = json!({"messages": [], "max_completion_tokens": 40});
        let call = Call::read(rules(Api::Chat), body, &behaviour).unwrap();
        assert_eq!((call.reasoning, call.said, call.cut), (30, 10, true));
    }

    #[test]
    fn best_of_is_generated_and_billed_but_not_sent() {
        let body = json!({"prompt": ["a", "b"], "best_of": 3, "max_tokens": 5});
        let call = Call::read(rules(Api::Completions), body, &Behaviour::default()).unwrap();
        assert_eq!((call.choices, call.candidates, call.output_tokens()), (2, 6, 30));
    }
}
