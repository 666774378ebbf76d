//! What a gateway wrote to its standard error, line by line, as it comes.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use super::DEADLINE;

/// The lines so far; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Log {
    /// Collects a stream's lines on a thread that ends with the stream.
    pub(super) fn collect(&self, stream: impl Read + Send + 'static) -> std::io::Result<()> {
        let log = self.clone();
        std::thread::Builder::new().name("gateway-log".to_owned()).spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                log.change(|state| state.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            log.change(|state| state.closed = true);
        })?;
        Ok(())
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.shared.state.lock().lines.clone()
    }

    /// The lines so far that are JSON objects; fields are beside the message, wherever the format puts them.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| event(line)).collect()
    }

    /// Whether `text` occurs in any line: to prove that a secret was not logged.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.shared.state.lock().lines.iter().any(|line| line.contains(text))
    }

    /// Waits for the first event with that message. Blocks the thread.
    ///
    /// # Errors
    /// When there is none in time, or the gateway ended without one; the whole log is in the error.
    pub fn wait_for(&self, message: &str) -> anyhow::Result<Value> {
        let found = |state: &State| {
            let events = state.lines.iter().filter_map(|line| event(line));
            events.into_iter().find(|event| event.get("message").and_then(Value::as_str) == Some(message))
        };
        self.wait(|state| found(state).is_some() || state.closed);
        let state = self.shared.state.lock();
        found(&state).ok_or_else(|| {
            anyhow::anyhow!("the gateway did not log {message:?}; its log:\n{}", state.lines.join("\n"))
        })
    }

    /// Waits until the gateway has closed its standard error, which is when it ended. Blocks the thread.
    pub(super) fn wait_for_end(&self) -> bool {
        self.wait(|state| state.closed);
        self.shared.state.lock().closed
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.state.lock();
        while !until(&state) {
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changed.notify_all();
    }
}

/// A line as one flat object.
fn event(line: &str) -> Option<Value> {
    let mut event: Value = serde_json::from_str(line).ok()?;
    let object = event.as_object_mut()?;
    if let Some(Value::Object(fields)) = object.remove("fields") {
        object.extend(fields);
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_wherever_its_fields_are() {
        let log = Log::default();
        let text =
            "not json\n{\"fields\":{\"message\":\"listening\",\"address\":\"a\"}}\n{\"message\":\"done\"}";
        log.collect(text.as_bytes()).unwrap();
        assert_eq!(log.wait_for("listening").unwrap()["address"], "a");
        assert!(log.wait_for("done").is_ok());
        assert!(log.wait_for("absent").unwrap_err().to_string().contains("not json"));
    }
}
