//! Answers whose caller does not read, and whose connection therefore never asks for more of them.
//!
//! A relay looks after itself whenever it is polled, and a held answer has nothing to look after. What is not polled is
//! ended by its worker: it must not outlive its tenant's suspension, nor keep a budget, a slot, memory or a connection to
//! upstream for ever.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::held::HeldAnswer;
use super::{Relay, RelayError};
use crate::session::OpenCall;
use crate::supervise::panics::{Scope, contained};

/// The reason of a response that its caller did not take.
const CALLER_STALLED: &str = "caller_stalled";

/// The body of an answer, which its worker can end.
#[derive(Debug)]
pub(crate) struct Delivery(Arc<Mutex<Option<Answer>>>);

/// What is delivered. Boxed, because a worker knows of a delivery for a while after it is done.
#[derive(Debug)]
enum Answer {
    Relay(Box<Relay>),
    Held(Box<HeldAnswer>),
}

/// The open deliveries of one worker.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    relays: Mutex<Vec<Entry>>,
    held: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    answer: Weak<Mutex<Option<Answer>>>,
    /// The task of its HTTP/2 stream; dropped, that resets the stream. On HTTP/1.1 the system gives up a connection that
    /// takes nothing (`TCP_USER_TIMEOUT`).
    stream: Option<AbortHandle>,
}

impl Delivery {
    fn new(answer: Answer) -> Self {
        Self(Arc::new(Mutex::new(Some(answer))))
    }

    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match &mut *self.0.lock() {
            Some(Answer::Relay(relay)) => relay.poll_frame(cx),
            Some(Answer::Held(held)) => Poll::Ready(held.next_frame().map(Ok)),
            None => Poll::Ready(Some(Err(RelayError::Ended(CALLER_STALLED)))),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(&*self.0.lock(), Some(Answer::Held(held)) if held.is_empty())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &*self.0.lock() {
            Some(Answer::Held(held)) => SizeHint::with_exact(held.remaining()),
            Some(Answer::Relay(_)) | None => SizeHint::default(),
        }
    }
}

impl Relays {
    /// Takes a relay into care for as long as the body that is made of it lives.
    pub(crate) fn share(&self, relay: Relay, open: &OpenCall) -> Delivery {
        let delivery = Delivery::new(Answer::Relay(Box::new(relay)));
        self.relays.lock().push(Entry::of(&delivery, open));
        delivery
    }

    /// Takes a held answer into care, where it is delivered over HTTP/2. Over HTTP/1.1 it needs none.
    pub(crate) fn deliver(&self, held: HeldAnswer, over_http2: bool, open: &OpenCall) -> Delivery {
        if !over_http2 {
            return Delivery::new(Answer::Held(Box::new(held)));
        }
        let delivery = Delivery::new(Answer::Held(Box::new(held.with_last_byte_apart())));
        self.held.lock().push(Entry::of(&delivery, open));
        delivery
    }

    /// Whether there are relays, or were a moment ago.
    pub(crate) fn any(&self) -> bool {
        !self.relays.lock().is_empty()
    }

    /// Ends what has stalled for too long, and forgets what is gone.
    pub(crate) fn look_after(&self, now: Instant) {
        for entries in [&self.relays, &self.held] {
            // This is the worker's own work, not a task: a panic in the end of one answer would end them all.
            entries.lock().retain(|entry| contained(Scope::Call, || entry.look_after(now)).unwrap_or(false));
        }
    }
}

impl Entry {
    fn of(delivery: &Delivery, open: &OpenCall) -> Self {
        Self { answer: Arc::downgrade(&delivery.0), stream: open.stream() }
    }

    /// Whether it is to be looked after further.
    fn look_after(&self, now: Instant) -> bool {
        let Some(answer) = self.answer.upgrade() else { return false };
        let mut answer = answer.lock();
        if answer.as_mut().is_some_and(|answer| answer.end_if_stalled(now)) {
            // Its drop settles the call and cancels upstream.
            *answer = None;
            if let Some(stream) = &self.stream {
                stream.abort();
            }
        }
        answer.is_some()
    }
}

impl Answer {
    fn end_if_stalled(&mut self, now: Instant) -> bool {
        let stalled = match self {
            Self::Relay(relay) => relay.has_stalled(now),
            Self::Held(held) => held.has_stalled(now),
        };
        if stalled {
            match self {
                Self::Relay(relay) => relay.call.ended_by(CALLER_STALLED),
                Self::Held(held) => held.ended_by(CALLER_STALLED),
            }
        }
        stalled
    }
}
