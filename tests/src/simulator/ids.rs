//! Identifiers that look random and never repeat, and the three that a response carries in its headers.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue};

/// Gives identifiers. Those of two simulators differ.
#[derive(Debug)]
pub(crate) struct Ids {
    seed: u64,
    given: AtomicU64,
}

/// What a response says for support to find its request by: recorded, so that a test can compare.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    /// `x-request-id`: of the model's service.
    pub(crate) request_id: String,
    /// `apim-request-id`: of the API Management in front of it.
    pub(crate) apim_request_id: String,
    /// `x-ms-client-request-id`: the caller's own, where it asked to have it back (Azure REST API Guidelines,
    /// "Distributed Tracing & Telemetry").
    client_request_id: Option<HeaderValue>,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self { seed: RandomState::new().hash_one("ids"), given: AtomicU64::new(0) }
    }

    /// How many were given.
    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// 32 hexadecimal digits: a permutation of a counter (`SplitMix64`).
    pub(crate) fn digits(&self) -> String {
        let number = self.given.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let seed = self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        format!("{:016x}{:016x}", mixed(seed), mixed(!seed))
    }

    /// A UUID in the form of a random one (RFC 9562, 5.4).
    pub(crate) fn uuid(&self) -> String {
        let mut text = String::with_capacity(36);
        for (at, digit) in self.digits().chars().enumerate() {
            if matches!(at, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(match at {
                12 => '4',
                16 => 'a',
                _ => digit,
            });
        }
        text
    }
}

impl Trace {
    /// The identifiers of the response to a request with those headers.
    pub(crate) fn new(ids: &Ids, request: &HeaderMap) -> Self {
        let wanted = request.get("x-ms-return-client-request-id");
        let wanted = wanted.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        Self {
            request_id: ids.uuid(),
            apim_request_id: ids.uuid(),
            client_request_id: request.get(CLIENT_REQUEST_ID).filter(|_| wanted).cloned(),
        }
    }

    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, id) in [("x-request-id", &self.request_id), ("apim-request-id", &self.apim_request_id)] {
            if let Ok(id) = HeaderValue::from_str(id) {
                headers.insert(name, id);
            }
        }
        if let Some(id) = &self.client_request_id {
            headers.insert(CLIENT_REQUEST_ID, id.clone());
        }
    }
}

const CLIENT_REQUEST_ID: &str = "x-ms-client-request-id";
