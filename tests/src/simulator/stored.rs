//! The responses that Azure keeps, by their ids; their content plays no part.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::Value;

use super::refusal::Refusal;

/// The ids of the last stored responses.
#[derive(Debug, Default)]
pub(crate) struct Stored(Mutex<VecDeque<String>>);

impl Stored {
    /// Keeps a response, unless its call said `"store": false`.
    pub(crate) fn keep(&self, id: String, body: &Value) {
        if body.get("store") == Some(&Value::Bool(false)) {
            return;
        }
        let mut ids = self.0.lock();
        ids.push_back(id);
        if ids.len() > MAX_STORED {
            ids.pop_front();
        }
    }

    /// Refuses a call that goes on from a response that is not kept.
    pub(crate) fn check(&self, body: &Value) -> Result<(), Refusal> {
        match body.get("previous_response_id").and_then(Value::as_str) {
            Some(id) if !self.0.lock().iter().rev().any(|known| known == id) => {
                Err(Refusal::unknown_response(id))
            }
            _ => Ok(()),
        }
    }
}

/// Responses kept at a time; the oldest is forgotten.
const MAX_STORED: usize = 1024;
