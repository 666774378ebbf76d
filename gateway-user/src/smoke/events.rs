//! The events of a chat stream, out of whatever pieces they arrive in (Server-Sent Events, WHATWG HTML 9.2).

use serde::Deserialize;

use super::error::SmokeError;

/// Joins the pieces of a stream into lines.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
}

/// What one event of a chat stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A piece of the answer.
    Text(String),
    /// What the call used.
    Usage(Usage),
    /// Why it ends early.
    Error(String),
    /// The end.
    Done,
}

/// What a call used, as chat completions report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

impl Events {
    /// Takes a piece, and gives the events that it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, SmokeError> {
        let mut events = Vec::new();
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LONGEST_LINE {
                return Err(SmokeError::NotAStream(format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                read_line(line.trim_ascii_end(), &mut events)?;
            }
        }
        Ok(events)
    }
}

fn read_line(line: &[u8], events: &mut Vec<Event>) -> Result<(), SmokeError> {
    let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start) else { return Ok(()) };
    if data == b"[DONE]" {
        events.push(Event::Done);
        return Ok(());
    }
    let Chunk { choices, usage, error } = serde_json::from_slice(data)
        .map_err(|problem| SmokeError::NotAStream(format!("an event is no chat chunk: {problem}")))?;
    if let Some(error) = error {
        let message = error.get("message").and_then(serde_json::Value::as_str);
        events.push(Event::Error(message.map_or_else(|| error.to_string(), str::to_owned)));
    }
    let texts = choices.into_iter().filter_map(|choice| choice.delta.content);
    events.extend(texts.filter(|text| !text.is_empty()).map(Event::Text));
    events.extend(usage.map(Event::Usage));
    Ok(())
}

/// Azure's longest lines, with the filter's results, are a few thousand bytes.
const LONGEST_LINE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[],\"prompt_filter_results\":[]}\r\n\r\n: comment\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"één\"}}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1,\"total_tokens\":8}}\n\n\
        data: [DONE]\n\n";

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let expected = [
            Event::Text("één".to_owned()),
            Event::Usage(Usage { prompt_tokens: 7, completion_tokens: 1 }),
            Event::Done,
        ];
        for cut in 0..STREAM.len() {
            let (first, second) = STREAM.as_bytes().split_at(cut);
            let mut events = Events::default();
            let mut found = events.push(first).unwrap();
            found.extend(events.push(second).unwrap());
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_error_event_says_why() {
        let event = "data: {\"error\":{\"code\":\"x\",\"message\":\"the budget is used up\"}}\n\n";
        let found = Events::default().push(event.as_bytes()).unwrap();
        assert_eq!(found, [Event::Error("the budget is used up".to_owned())]);
        assert!(Events::default().push(b"data: what\n").is_err());
    }
}
