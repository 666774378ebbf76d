//! An event stream, parsed.

use serde_json::Value;

/// The events of a stream: their names, and their data as JSON or else as a string.
pub(crate) fn events(text: &str) -> Vec<(String, Value)> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let events = text.split("\n\n").filter(|event| event.lines().any(|line| line.starts_with("data:")));
    events
        .map(|event| {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let data = field("data: ");
            (field("event: ").to_owned(), serde_json::from_str(data).unwrap_or_else(|_| Value::from(data)))
        })
        .collect()
}

/// What a chat stream's first choice says.
pub(crate) fn said(events: &[(String, Value)]) -> String {
    events.iter().filter_map(|(_, data)| data["choices"][0]["delta"]["content"].as_str()).collect()
}
