//! A call as the simulator understands it: the body's fields that change the answer, and what Azure refuses.

use serde_json::{Value, json};

use super::behaviour::Behaviour;
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
        fields.known_to(rules.version)?;
        let stream = fields.flag("stream")?;
        if fields.present("stream_options").is_some() && !stream {
            return Err(Refusal::invalid(
                "stream_options",
                None,
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            ));
        }
        let cap = fields.cap(api, behaviour)?;
        let (choices, candidates) = fields.answers(api)?;
        if stream && candidates > choices {
            return Err(Refusal::invalid("best_of", None, "Results of 'best_of' cannot be streamed."));
        }
        let tool = fields.tool(api, behaviour);
        let input = match api {
            Api::Chat => fields.required("messages", Value::is_array)?,
            Api::Completions => {
                fields.required("prompt", |prompt| prompt.is_string() || prompt.is_array())?
            }
            Api::Embeddings | Api::Responses => {
                fields.required("input", |input| input.is_string() || input.is_array())?
            }
        };
        let prompt_tokens = behaviour.prompt_tokens.unwrap_or_else(|| match api {
            Api::Chat => prompt::chat(&body),
            Api::Responses => prompt::response(&body),
            Api::Completions | Api::Embeddings => prompt::texts(input),
        });
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

struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Refuses what the version of the API does not know.
    fn known_to(&self, version: Version) -> Result<(), Refusal> {
        let added = ["stream_options", "max_completion_tokens"];
        match added.into_iter().find(|key| self.present(key).is_some()) {
            Some(key) if !version.since(SINCE_2024_09_01_PREVIEW) => Err(Refusal::unrecognized(key)),
            _ => Ok(()),
        }
    }

    fn required(&self, key: &'static str, fits: impl Fn(&Value) -> bool) -> Result<&'a Value, Refusal> {
        let value = self.present(key).ok_or_else(|| {
            Refusal::invalid(
                key,
                Some("missing_required_parameter"),
                format!("Missing required parameter: '{key}'."),
            )
        })?;
        if fits(value) { Ok(value) } else { Err(wrong_type(key)) }
    }

    fn flag(&self, key: &'static str) -> Result<bool, Refusal> {
        self.present(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong_type(key)))
    }

    fn number(&self, key: &'static str, least: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if number >= least => Ok(Some(number)),
            Some(number) => Err(Refusal::invalid(
                key,
                Some("integer_below_min_value"),
                format!(
                    "Invalid '{key}': integer below minimum value. Expected a value >= {least}, but got {number} instead."
                ),
            )),
            None => Err(wrong_type(key)),
        }
    }

    /// The most tokens that one answer may have.
    fn cap(&self, api: Api, behaviour: &Behaviour) -> Result<u64, Refusal> {
        match api {
            Api::Embeddings => Ok(0),
            // Without one, a completion is cut at 16 tokens.
            Api::Completions => Ok(self.number("max_tokens", 1)?.unwrap_or(16)),
            Api::Responses => Ok(self.number("max_output_tokens", 16)?.unwrap_or(u64::MAX)),
            Api::Chat => {
                let old = self.number("max_tokens", 1)?;
                let new = self.number("max_completion_tokens", 1)?;
                if old.is_some() && new.is_some() {
                    return Err(Refusal::invalid(
                        "max_tokens",
                        Some("invalid_parameter_combination"),
                        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
                    ));
                }
                if old.is_some() && behaviour.reasoning_tokens > 0 {
                    return Err(Refusal::invalid(
                        "max_tokens",
                        Some("unsupported_parameter"),
                        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                    ));
                }
                Ok(new.or(old).unwrap_or(u64::MAX))
            }
        }
    }

    fn answers(&self, api: Api) -> Result<(u64, u64), Refusal> {
        match api {
            Api::Embeddings | Api::Responses => Ok((1, 1)),
            Api::Chat => {
                let choices = self.count("n")?.unwrap_or(1);
                Ok((choices, choices))
            }
            Api::Completions => {
                let choices = self.count("n")?.unwrap_or(1);
                let best_of = self.count("best_of")?.unwrap_or(choices);
                if best_of < choices {
                    return Err(Refusal::invalid(
                        "best_of",
                        None,
                        "best_of must be greater than or equal to n.",
                    ));
                }
                let prompts = match self.0.get("prompt") {
                    Some(Value::Array(items)) if items.iter().all(|item| !item.is_number()) => {
                        items.len() as u64
                    }
                    _ => 1,
                };
                Ok((choices * prompts, best_of * prompts))
            }
        }
    }

    fn count(&self, key: &'static str) -> Result<Option<u64>, Refusal> {
        let number = self.number(key, 1)?;
        if number.is_some_and(|number| number > MAX_CHOICES) {
            return Err(Refusal::invalid(
                key,
                Some("integer_above_max_value"),
                format!("Invalid '{key}': integer above maximum value. Expected a value <= {MAX_CHOICES}."),
            ));
        }
        Ok(number)
    }

    fn tool(&self, api: Api, behaviour: &Behaviour) -> Option<String> {
        let tools = match api {
            Api::Chat | Api::Responses => self.0.get("tools")?.as_array()?,
            Api::Completions | Api::Embeddings => return None,
        };
        let name = |tool: &Value| {
            let name = tool.pointer("/function/name").or_else(|| tool.get("name"));
            name.and_then(Value::as_str).map(str::to_owned)
        };
        match self.0.get("tool_choice") {
            Some(Value::Object(_)) => self.0.get("tool_choice").and_then(name),
            Some(choice) if *choice == json!("required") => tools.iter().find_map(name),
            _ if behaviour.tool_call => tools.iter().find_map(name),
            _ => None,
        }
    }
}

fn wrong_type(key: &'static str) -> Refusal {
    Refusal::invalid(key, Some("invalid_type"), format!("Invalid type for '{key}'."))
}

/// The version that brought `max_completion_tokens` and `stream_options`: Microsoft's page on the lifecycle of API
/// versions, "Changes between 2024-09-01-preview and 2024-08-01-preview". The next stable one, 2024-10-21, has both.
const SINCE_2024_09_01_PREVIEW: u32 = 20_240_901;
/// The largest `n`.
const MAX_CHOICES: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(api: Api) -> Rules {
        Rules { api, version: Version::V1 }
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
