//! What the simulator was sent: the last requests, whole, so that tests can assert on the bytes that Azure would see.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, Method};
use parking_lot::Mutex;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path with the query, as sent.
    pub target: String,
    /// The headers, values as sent.
    pub headers: HeaderMap,
    /// The body, without its transfer coding.
    pub body: Bytes,
    /// Whether the body ended as its framing said it would.
    pub complete: bool,
    /// Which connection it came on; connections count up from 0.
    pub connection: u64,
    /// The `x-request-id` of its response.
    pub request_id: String,
    /// The `apim-request-id` of its response.
    pub apim_request_id: String,
}

impl Recorded {
    /// A header's value as text, or nothing where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Whether `text` occurs anywhere in the request: to prove that a secret was not passed on.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        let within = |bytes: &[u8]| bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes());
        within(self.target.as_bytes())
            || within(&self.body)
            || self
                .headers
                .iter()
                .any(|(name, value)| within(name.as_str().as_bytes()) || within(value.as_bytes()))
    }
}

/// The last requests; the oldest makes room.
#[derive(Debug)]
pub(crate) struct Recorder {
    capacity: usize,
    requests: Mutex<VecDeque<Recorded>>,
}

impl Recorder {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, requests: Mutex::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    pub(crate) fn push(&self, request: Recorded) {
        let mut requests = self.requests.lock();
        requests.push_back(request);
        while requests.len() > self.capacity {
            requests.pop_front();
        }
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.requests.lock().iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.requests.lock().clear();
    }
}
