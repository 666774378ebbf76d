//! The request of an agent: tools with their schemas, and a long conversation of calls and results.

use serde_json::{Value, json};

/// Tools that the agent may use.
const TOOLS: usize = 20;
/// What a conversation is written in, sentence by sentence.
const SENTENCES: [&str; 6] = [
    "The build fails because the module is looked up relative to the crate and not to the workspace.",
    "Let me read the file again before I change anything, and then run the tests that belong to it.",
    "fn main() -> Result<(), Error> {\n    let config = Config::load(\"gateway.toml\")?;\n    serve(config)\n}",
    "error[E0308]: mismatched types: expected `u64`, found `usize` at src/limits/window.rs:127:34",
    "There are 3 failures of 412, all of them in the part that parses dates; the others pass in 8.31 s.",
    "I would rather keep the old name, since the dashboards of two teams still ask for it.",
];

/// A chat body of about so many bytes, the same every time, as JSON.
pub fn body(bytes: usize) -> String {
    let tools: Vec<_> = (0..TOOLS).map(tool).collect();
    let mut messages = vec![json!({"role": "system", "content": "You are a careful programmer."})];
    let mut written = Value::from(tools.clone()).to_string().len();
    let mut turn = 0;
    while written < bytes {
        let exchange = exchange(turn);
        written += exchange.iter().map(|message| message.to_string().len() + 1).sum::<usize>();
        messages.extend(exchange);
        turn += 1;
    }
    json!({"messages": messages, "tools": tools, "max_tokens": 256, "temperature": 0}).to_string()
}

fn tool(number: usize) -> Value {
    json!({"type": "function", "function": {
        "name": format!("tool_{number}"),
        "description": "Reads or changes a part of the repository, and says what has become of it.",
        "parameters": {"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string", "description": "A path below the repository's root"},
            "mode": {"type": "string", "enum": ["read", "write", "append"]},
            "lines": {"type": "integer", "description": "How many lines at most"},
        }},
    }})
}

/// A question, a tool's call and its result, and an answer.
fn exchange(turn: usize) -> [Value; 4] {
    let sentences = |first: usize, count: usize| {
        let text: Vec<_> = (first..first + count).map(|at| SENTENCES[at % SENTENCES.len()]).collect();
        format!("{turn}: {}", text.join(" "))
    };
    let id = format!("call_{turn}");
    let arguments = json!({"path": format!("src/part_{turn}.rs"), "mode": "read"}).to_string();
    let call = json!({"id": id, "type": "function", "function": {
        "name": format!("tool_{}", turn % TOOLS), "arguments": arguments,
    }});
    [
        json!({"role": "user", "content": sentences(turn, 2)}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": id, "content": sentences(turn + 2, 12)}),
        json!({"role": "assistant", "content": sentences(turn + 1, 3)}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_about_the_size_that_was_asked_for() {
        for kib in [27, 157, 605] {
            let body = body(kib * 1024);
            assert!((kib * 1024..kib * 1024 + 4096).contains(&body.len()), "{}", body.len());
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["tools"].as_array().unwrap().len(), 20);
        }
    }
}
