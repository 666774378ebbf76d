//! The number that a request is known by: in its response, in the log, and in what a caller tells support.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// `x-gateway-request-id`: the gateway's own id, on every answer.
pub(crate) const GATEWAY_REQUEST_ID: HeaderName = HeaderName::from_static("x-gateway-request-id");
/// `x-request-id`: upstream's own id where upstream answered, else the gateway's.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes request ids for one worker: a random start, so that no two workers or processes meet, and a count.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    count: std::sync::atomic::AtomicU64,
}

/// One request's id, 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(u64, u64);

impl RequestIds {
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { start: getrandom::u64()?, count: getrandom::u64()?.into() })
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.start, self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

impl RequestId {
    pub(crate) fn header(self) -> HeaderValue {
        let mut digits = [0; 32];
        for (place, digit) in digits.iter_mut().enumerate() {
            let half = if place < 16 { self.0 } else { self.1 };
            let nibble = (half >> (60 - 4 * (place % 16))) & 0xf;
            *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or_default()];
        }
        HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("0"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_in_a_header_and_in_the_log() {
        let id = RequestId(0x0123_4567_89ab_cdef, 0xf);
        assert_eq!(id.header(), id.to_string());
        assert_eq!(id.to_string().len(), 32);
    }

    #[test]
    fn no_two_are_alike() {
        let ids = RequestIds::new().unwrap();
        assert_ne!(ids.next(), ids.next());
    }
}
