//! Whether a backend takes the gateway's identity, as its answers tell.
//!
//! Callers' credentials do not reach a backend, so that a 401 or 403 from it is about the gateway: its identity has no role
//! there, or the account's network rules keep it out. Such a state is told once, not once a call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;

use crate::limits::Now;
use crate::names::BackendName;

/// What a backend's answers tell of the gateway's identity.
#[derive(Debug)]
pub(crate) struct Access {
    /// The state below is `Granted`: what every answered call looks at.
    granted: AtomicBool,
    state: Mutex<State>,
    role_missing: Gauge,
}

#[derive(Debug, Default)]
struct State {
    access: Known,
    /// When the last line about it was written, by the process's own clock.
    said_at_ms: Option<u64>,
    /// Whether that line is the last word on it.
    said: bool,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Known {
    /// Nothing yet: no call was answered, or none in a way that tells.
    #[default]
    Unknown,
    /// It takes the identity.
    Granted,
    /// It does not.
    Denied(Denial),
}

/// A backend's refusal of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What it is about.
    pub about: Denied,
    /// Since when, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// What to do, with what Azure says.
    pub reason: String,
}

/// What a refusal of the gateway is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The identity has no role on the account, or its token is not for it.
    Role,
    /// The account's network rules.
    Network,
}

impl Access {
    pub(super) fn new(role_missing: Gauge) -> Self {
        role_missing.set(0);
        Self { granted: AtomicBool::new(false), state: Mutex::default(), role_missing }
    }

    /// What is known.
    pub(super) fn known(&self) -> Known {
        self.state.lock().access.clone()
    }

    /// Takes note of an answer to a request with a token of the gateway's that had not ended. `body` is as much of it as is
    /// there.
    pub(super) fn saw(&self, backend: &BackendName, status: StatusCode, body: &VecDeque<Bytes>, now: Now) {
        if status.is_success() {
            if !self.granted.load(Ordering::Relaxed) {
                self.grant(backend);
            }
        } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.deny(backend, denial(status, body, now), now);
        }
    }

    fn grant(&self, backend: &BackendName) {
        let mut state = self.state.lock();
        self.granted.store(true, Ordering::Relaxed);
        self.role_missing.set(0);
        let was = std::mem::replace(&mut state.access, Known::Granted);
        if std::mem::take(&mut state.said) && was != Known::Granted {
            tracing::info!(%backend, "the backend takes the gateway's identity again");
        }
    }

    fn deny(&self, backend: &BackendName, denial: Denial, now: Now) {
        let mut state = self.state.lock();
        if matches!(&state.access, Known::Denied(known) if known.about == denial.about) {
            return;
        }
        self.granted.store(false, Ordering::Relaxed);
        self.role_missing.set((denial.about == Denied::Role).into());
        // Something on the way may refuse some calls and let others through.
        let is_due = state.said_at_ms.is_none_or(|at| now.monotonic_ms.saturating_sub(at) >= SAY_EVERY_MS);
        if is_due {
            tracing::error!(%backend, reason = denial.reason, "the backend refuses the gateway");
            state.said_at_ms = Some(now.monotonic_ms);
            state.said = true;
        }
        state.access = Known::Denied(denial);
    }
}

fn denial(status: StatusCode, body: &VecDeque<Bytes>, now: Now) -> Denial {
    let body = body.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat();
    let said = said(&body);
    let says = |text: &str| said.contains(text) || memchr::memmem::find(&body, text.as_bytes()).is_some();
    let (about, remedy) = if status == StatusCode::FORBIDDEN && NETWORK.iter().any(|text| says(text)) {
        (
            Denied::Network,
            "the account's network rules refuse the gateway: let its network in, or use a private endpoint",
        )
    } else if ROLE.iter().any(|text| says(text)) {
        (
            Denied::Role,
            "the gateway's identity has no role on the account: assign `Cognitive Services OpenAI User` on it to the \
             identity's principal, which takes effect after some minutes",
        )
    } else {
        (
            Denied::Role,
            "the account does not take the gateway's token: assign `Cognitive Services OpenAI User` on it to the identity's \
             principal, and check that account and identity are in one tenant and that the backend's `scope` is right",
        )
    };
    let reason =
        if said.is_empty() { format!("{remedy} ({status})") } else { format!("{remedy} ({status}: {said})") };
    Denial { about, since: now.utc_seconds, reason }
}

/// What the body of an error says, fit for a log.
fn said(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json.pointer("/error/message").or_else(|| json.pointer("/message")).and_then(Value::as_str);
    message.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect()
}

/// What Azure says where a role is missing (Azure OpenAI, "How to configure with Microsoft Entra ID": troubleshooting).
const ROLE: [&str; 2] = ["PermissionDenied", "lacks the required data action"];
/// What Azure says where its network rules refuse ("Configure Azure AI services virtual networks").
const NETWORK: [&str; 3] = ["Virtual Network", "Firewall", "Public access is disabled"];
const SAY_EVERY_MS: u64 = 60_000;
const MOST_SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { monotonic_ms: seconds * 1000, utc_seconds: seconds }
    }

    fn saw(access: &Access, status: u16, message: &str, seconds: u64) -> Known {
        let body = format!(r#"{{"error":{{"code":"{status}","message":"{message}"}}}}"#);
        // However it was cut on the way.
        let (start, end) = body.split_at(body.len() / 2);
        let body = [start, end].map(|part| Bytes::copy_from_slice(part.as_bytes())).into();
        access.saw(
            &BackendName::new("one").unwrap(),
            StatusCode::from_u16(status).unwrap(),
            &body,
            at(seconds),
        );
        access.known()
    }

    fn denied(known: Known) -> Denial {
        match known {
            Known::Denied(denial) => denial,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_role_stands_until_a_call_succeeds() {
        let access = Access::new(Gauge::default());
        let lacks = "The principal `x` lacks the required data action `y`";
        let denial = denied(saw(&access, 401, lacks, 5));
        assert_eq!((denial.about, denial.since, access.role_missing.get()), (Denied::Role, 5, 1));
        assert!(denial.reason.contains("assign `Cognitive Services OpenAI User`"), "{}", denial.reason);
        assert!(denial.reason.ends_with(&format!("(401 Unauthorized: {lacks})")), "{}", denial.reason);
        // A caller's own mistakes tell nothing.
        for status in [400, 404, 429, 500] {
            assert_eq!(denied(saw(&access, status, "", 6)).since, 5);
        }
        assert_eq!(denied(saw(&access, 401, lacks, 7)).since, 5);
        assert_eq!(saw(&access, 200, "", 8), Known::Granted);
        assert_eq!(access.role_missing.get(), 0);
    }

    #[test]
    fn network_rules_are_told_from_roles() {
        let access = Access::new(Gauge::default());
        let denial = denied(saw(&access, 403, "Access denied due to Virtual Network/Firewall rules.", 1));
        assert_eq!((denial.about, access.role_missing.get()), (Denied::Network, 0));
        let denial = denied(saw(&access, 401, "Access token is missing, invalid, or has expired.", 2));
        assert_eq!((denial.about, access.role_missing.get()), (Denied::Role, 1));
        assert!(denial.reason.contains("`scope`"), "{}", denial.reason);
    }

    #[test]
    fn what_comes_and_goes_is_logged_once_a_minute() {
        let access = Access::new(Gauge::default());
        let mut lines = 0;
        for second in 0..120 {
            saw(&access, 403, "", second);
            lines += u32::from(access.state.lock().said);
            saw(&access, 200, "", second);
        }
        assert_eq!(lines, 2);
    }
}
