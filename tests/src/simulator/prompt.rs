//! How many tokens a prompt is, by OpenAI's published rules: `o200k_base`, three tokens around each chat message, one for
//! a name, three to prime the answer, and the cookbook's rule for tools.

use serde_json::Value;

/// The tokens of a chat's messages and tools.
pub(crate) fn chat(request: &Value) -> u64 {
    let messages = list(request, "messages").map(message).sum::<u64>();
    messages + tools(request) + PRIMING
}

/// The tokens of a completion's or an embedding's input: a text, several, or tokens already encoded.
pub(crate) fn texts(input: &Value) -> u64 {
    match input {
        Value::String(text) => encoded(text),
        Value::Array(items) => items.iter().map(texts).sum(),
        Value::Number(_) => 1,
        Value::Null | Value::Bool(_) | Value::Object(_) => 0,
    }
}

/// The tokens of a Responses call: its instructions and input are messages.
pub(crate) fn response(request: &Value) -> u64 {
    let instructions = request.get("instructions").and_then(Value::as_str);
    let instructions = instructions.map_or(0, |text| PER_MESSAGE + encoded("system") + encoded(text));
    let input = match request.get("input") {
        Some(Value::String(text)) => PER_MESSAGE + encoded("user") + encoded(text),
        Some(Value::Array(items)) => items.iter().map(message).sum(),
        _ => 0,
    };
    instructions + input + tools(request) + PRIMING
}

fn message(message: &Value) -> u64 {
    let fields = message.as_object().into_iter().flatten();
    PER_MESSAGE
        + fields
            .map(|(key, value)| match (key.as_str(), value) {
                ("type", _) => 0,
                ("name", name) => PER_NAME + texts(name),
                ("content", Value::Array(parts)) => parts.iter().map(part).sum(),
                (_, Value::Object(_) | Value::Array(_)) => encoded(&value.to_string()),
                (_, text) => texts(text),
            })
            .sum::<u64>()
}

fn part(part: &Value) -> u64 {
    if let Some(text) = part.get("text").and_then(Value::as_str) {
        return encoded(text);
    }
    let detail = part.pointer("/image_url/detail").or_else(|| part.get("detail"));
    match (part.get("type").and_then(Value::as_str), detail.and_then(Value::as_str)) {
        (Some("image_url" | "input_image"), Some("low")) => IMAGE_BASE,
        (Some("image_url" | "input_image"), _) => IMAGE_BASE + IMAGE_TILES * IMAGE_TILE,
        _ => encoded(&part.to_string()),
    }
}

/// OpenAI's cookbook, "How to count tokens with tiktoken", the part on tools, with gpt-4o's figures.
fn tools(request: &Value) -> u64 {
    let tools = list(request, "tools").map(|tool| {
        let function = tool.get("function").unwrap_or(tool);
        let text = |key| function.get(key).and_then(Value::as_str).unwrap_or_default();
        let properties = function.pointer("/parameters/properties").and_then(Value::as_object);
        let properties = properties.filter(|properties| !properties.is_empty()).map_or(0, |properties| {
            TOOL_PROPERTIES + properties.iter().map(|(name, schema)| property(name, schema)).sum::<u64>()
        });
        TOOL + encoded(&format!("{}:{}", text("name"), text("description"))) + properties
    });
    let tools: u64 = tools.sum();
    if tools == 0 { 0 } else { tools + TOOLS_END }
}

fn property(name: &str, schema: &Value) -> u64 {
    let text = |key| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let values = list(schema, "enum").map(|value| TOOL_ENUM_VALUE + texts(value)).sum::<u64>();
    let line = format!("{name}:{}:{}", text("type"), text("description"));
    (TOOL_PROPERTY + values + encoded(&line)).saturating_sub(if values == 0 { 0 } else { TOOL_ENUM_SAVES })
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn encoded(text: &str) -> u64 {
    tiktoken_rs::o200k_base_singleton().count_ordinary(text) as u64
}

const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
const PRIMING: u64 = 3;
/// An image in low detail, and the fixed part of one in high detail.
const IMAGE_BASE: u64 = 85;
/// A tile of 512 pixels.
const IMAGE_TILE: u64 = 170;
/// Images are never opened: each is taken for one of 1024 by 1024.
const IMAGE_TILES: u64 = 4;
const TOOL: u64 = 7;
const TOOL_PROPERTIES: u64 = 3;
const TOOL_PROPERTY: u64 = 3;
const TOOL_ENUM_SAVES: u64 = 3;
const TOOL_ENUM_VALUE: u64 = 3;
const TOOLS_END: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of OpenAI's cookbook, with the count that the API reported for gpt-4o.
    #[test]
    fn the_cookbooks_messages_are_124_tokens() {
        let request = serde_json::json!({"messages": [
            {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
            {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
            {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
            {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
            {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
            {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
        ]});
        assert_eq!(chat(&request), 124);
    }

    /// As above, for its weather tool with gpt-4o: 101 tokens.
    #[test]
    fn the_cookbooks_tool_call_is_101_tokens() {
        let request = serde_json::json!({
            "messages": [
                {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
                {"role": "user", "content": "What's the weather like in San Francisco?"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {"type": "object", "properties": {
                    "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                    "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
                }, "required": ["location"]},
            }}],
        });
        assert_eq!(chat(&request), 101);
    }

    #[test]
    fn texts_and_encoded_tokens_count_alike() {
        assert_eq!(texts(&serde_json::json!(["hello world", "hello"])), 3);
        assert_eq!(texts(&serde_json::json!([[1, 2, 3], [4]])), 4);
    }
}
