//! The limits of a deployment: how many tokens and requests it takes a minute, and what is left of them.
//!
//! As Microsoft's page on quota describes it, a call counts when it arrives, with its prompt and the limit of its
//! answer, and is not corrected by what was generated.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

/// The limits of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Tokens of prompts, and of the limits of answers, in a minute.
    pub tokens_per_minute: u64,
    /// Calls in a minute.
    pub requests_per_minute: u64,
}

/// The limits that were set, and what was used of each.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<HashMap<String, Window>>);

/// A minute that begins with its first call.
#[derive(Debug)]
struct Window {
    quota: Quota,
    ends: Option<Instant>,
    tokens: u64,
    requests: u64,
}

/// Where a deployment stands once a call was counted, or was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    quota: Quota,
    tokens_left: u64,
    requests_left: u64,
}

impl Quotas {
    pub(crate) fn set(&self, deployment: &str, quota: Quota) {
        let window = Window { quota, ends: None, tokens: 0, requests: 0 };
        self.0.lock().insert(deployment.to_owned(), window);
    }

    /// Counts a call, where its deployment has a limit.
    ///
    /// # Errors
    /// When it passes the limit: where the deployment stands, and when the minute is over.
    pub(crate) fn count(
        &self,
        deployment: &str,
        tokens: u64,
    ) -> Result<Option<Standing>, (Standing, Duration)> {
        let mut windows = self.0.lock();
        windows.get_mut(deployment).map(|window| window.count(Instant::now(), tokens)).transpose()
    }
}

impl Window {
    fn count(&mut self, now: Instant, tokens: u64) -> Result<Standing, (Standing, Duration)> {
        let ends = match self.ends {
            Some(ends) if now < ends => ends,
            _ => {
                (self.tokens, self.requests) = (0, 0);
                now + MINUTE
            }
        };
        self.ends = Some(ends);
        let (tokens, requests) = (self.tokens.saturating_add(tokens), self.requests + 1);
        if tokens > self.quota.tokens_per_minute || requests > self.quota.requests_per_minute {
            return Err((self.standing(), ends - now));
        }
        (self.tokens, self.requests) = (tokens, requests);
        Ok(self.standing())
    }

    fn standing(&self) -> Standing {
        Standing {
            quota: self.quota,
            tokens_left: self.quota.tokens_per_minute - self.tokens,
            requests_left: self.quota.requests_per_minute - self.requests,
        }
    }
}

impl Standing {
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        let Self { quota: Quota { tokens_per_minute, requests_per_minute }, tokens_left, requests_left } =
            self;
        for (name, value) in [
            ("x-ratelimit-limit-requests", requests_per_minute),
            ("x-ratelimit-limit-tokens", tokens_per_minute),
            ("x-ratelimit-remaining-requests", requests_left),
            ("x-ratelimit-remaining-tokens", tokens_left),
        ] {
            headers.insert(name, HeaderValue::from(value));
        }
    }
}

/// What a deployment without limits says: of requests and tokens that many, `used` calls of 100 tokens ago.
pub(crate) fn unlimited(used: u64) -> Standing {
    let quota = Quota { tokens_per_minute: 1_000_000, requests_per_minute: 10_000 };
    let used = used % quota.requests_per_minute;
    Standing {
        quota,
        tokens_left: quota.tokens_per_minute - used * 100,
        requests_left: quota.requests_per_minute - used,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_gives_its_tokens_and_requests_once() {
        let quota = Quota { tokens_per_minute: 100, requests_per_minute: 3 };
        let mut window = Window { quota, ends: None, tokens: 0, requests: 0 };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(window.count(at(0), 60).unwrap().tokens_left, 40);
        let (standing, wait) = window.count(at(20), 41).unwrap_err();
        assert_eq!((standing.tokens_left, standing.requests_left, wait), (40, 2, Duration::from_secs(40)));
        assert_eq!(window.count(at(30), 40).unwrap().tokens_left, 0);
        assert_eq!(window.count(at(40), 0).unwrap().requests_left, 0);
        assert_eq!(window.count(at(59), 0).unwrap_err().1, Duration::from_secs(1));
        assert_eq!(window.count(at(60), 100).unwrap().requests_left, 2, "the next minute");
    }
}
