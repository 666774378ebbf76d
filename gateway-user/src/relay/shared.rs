//! Relays whose caller does not read, and whose connection therefore never asks them for more.
//!
//! A relay looks after itself whenever it is polled. One that is not polled is ended by its worker: it must not outlive
//! its tenant's suspension, nor hold a budget and a connection to upstream for ever.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

use super::{Relay, RelayError};
use crate::supervise::panics::{Scope, contained};

/// The reason of a response that its caller did not take.
const CALLER_STALLED: &str = "caller_stalled";

/// A relay that its worker can end.
#[derive(Debug)]
pub(crate) struct SharedRelay(Arc<Mutex<Option<Relay>>>);

/// The open relays of one worker.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    open: Mutex<Vec<Weak<Mutex<Option<Relay>>>>>,
}

impl SharedRelay {
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match &mut *self.0.lock() {
            Some(relay) => relay.poll_frame(cx),
            None => Poll::Ready(Some(Err(RelayError::Ended(CALLER_STALLED)))),
        }
    }
}

impl Relays {
    /// Takes a relay into care for as long as the body that is made of it lives.
    pub(crate) fn share(&self, relay: Relay) -> SharedRelay {
        let shared = Arc::new(Mutex::new(Some(relay)));
        self.open.lock().push(Arc::downgrade(&shared));
        SharedRelay(shared)
    }

    /// Whether there are any, or were a moment ago.
    pub(crate) fn any(&self) -> bool {
        !self.open.lock().is_empty()
    }

    /// Ends the relays that have stalled for too long, and forgets those that are gone.
    pub(crate) fn look_after(&self, now: Instant) {
        self.open.lock().retain(|relay| {
            let Some(relay) = relay.upgrade() else { return false };
            // This is the worker's own work, not a task: a panic in the end of one relay would end them all.
            contained(Scope::Call, || goes_on(&relay, now)).unwrap_or(false)
        });
    }
}

/// Ends a relay if it has stalled for too long. Whether it is still open.
fn goes_on(relay: &Mutex<Option<Relay>>, now: Instant) -> bool {
    let mut relay = relay.lock();
    if let Some(stalled) = relay.as_mut().filter(|relay| relay.has_stalled(now)) {
        stalled.call.ended_by(CALLER_STALLED);
        // Its drop settles the call and cancels upstream.
        *relay = None;
    }
    relay.is_some()
}
