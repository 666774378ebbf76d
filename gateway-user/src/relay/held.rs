//! An answer that is all here, until its caller has taken it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;

use super::LOOK_AFTER;
use crate::buffers::Reserved;
use crate::call::{CALLER_GONE, Call};

/// A whole answer. It keeps its call's slot, and the memory that was reserved for it.
#[derive(Debug)]
pub(crate) struct HeldAnswer {
    parts: VecDeque<Bytes>,
    /// What it answers; none where the gateway speaks for itself.
    call: Option<Call>,
    reserved: Option<Reserved>,
    /// Bytes handed to the connection last, which holds them until it asks for more.
    handed: usize,
    /// When the connection last asked.
    asked: Instant,
    /// How long the caller may take nothing.
    patience: Duration,
}

impl HeldAnswer {
    /// A call's answer, for which memory was reserved.
    pub(crate) fn new(call: Call, parts: VecDeque<Bytes>, reserved: Reserved, patience: Duration) -> Self {
        let mut answer = Self::own(parts, patience);
        answer.call = Some(call);
        answer.reserved = Some(reserved);
        answer
    }

    /// The gateway's own answer.
    pub(crate) fn own(parts: VecDeque<Bytes>, patience: Duration) -> Self {
        Self { parts, call: None, reserved: None, handed: 0, asked: Instant::now(), patience }
    }

    /// Makes the last byte a part of its own. HTTP/2 takes a part once the caller's window has room for a byte of it, and
    /// then keeps it however long the rest takes; it takes the last byte once there is room for all that came before.
    pub(super) fn with_last_byte_apart(mut self) -> Self {
        if let Some(last) = self.parts.back_mut()
            && last.len() > 1
        {
            let byte = last.split_off(last.len() - 1);
            self.parts.push_back(byte);
        }
        self
    }

    /// The next part; nothing after the last.
    pub(super) fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        self.asked = Instant::now();
        let next = self.parts.pop_front();
        let taken = std::mem::replace(&mut self.handed, next.as_ref().map_or(0, Bytes::len));
        if let Some(reserved) = &mut self.reserved {
            reserved.shrink(taken);
        }
        next.map(Frame::data)
    }

    /// Whether all of it was handed to the connection.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes that were not handed to the connection yet.
    pub(super) fn remaining(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Whether the caller has taken nothing for too long, or its tenant may not call any more.
    pub(super) fn has_stalled(&self, now: Instant) -> bool {
        let withdrawn = self.call.as_ref().is_some_and(|call| call.permission().withdrawn().is_some());
        let limit = if withdrawn { LOOK_AFTER } else { self.patience };
        now.saturating_duration_since(self.asked) >= limit
    }

    /// Notes why the caller does not get the rest.
    pub(super) fn ended_by(&mut self, reason: &'static str) {
        if let Some(call) = &mut self.call {
            call.ended_by(reason);
        }
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        if !self.is_empty() && self.call.as_ref().is_some_and(|call| !call.has_reason()) {
            self.ended_by(CALLER_GONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::buffers::Buffers;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn parts(parts: &[&'static [u8]]) -> VecDeque<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part)).collect()
    }

    fn handed(answer: &mut HeldAnswer) -> Option<Bytes> {
        answer.next_frame().map(|frame| frame.into_data().unwrap())
    }

    #[test]
    fn the_last_byte_comes_by_itself() {
        let mut answer = HeldAnswer::own(parts(&[b"abc", b"de"]), PATIENCE).with_last_byte_apart();
        assert_eq!(answer.remaining(), 5);
        for part in ["abc", "d", "e"] {
            assert!(!answer.is_empty());
            assert_eq!(handed(&mut answer).unwrap(), part);
        }
        assert!(answer.is_empty() && handed(&mut answer).is_none());
        assert_eq!(HeldAnswer::own(parts(&[b"a"]), PATIENCE).with_last_byte_apart().parts.len(), 1);
    }

    #[test]
    fn what_the_connection_was_given_counts_until_it_asks_for_more() {
        let shown = Gauge::default();
        let mut reserved = Buffers::new(100, shown.clone()).reserve(&Arc::default());
        reserved.grow(5).unwrap();
        let mut answer = HeldAnswer::own(parts(&[b"abc", b"de"]), PATIENCE);
        answer.reserved = Some(reserved);
        for left in [5, 2, 0] {
            handed(&mut answer);
            assert_eq!(shown.get(), left);
        }
    }

    #[test]
    fn who_takes_nothing_has_stalled() {
        let mut answer = HeldAnswer::own(parts(&[b"abc", b"de"]), PATIENCE);
        let begun = answer.asked;
        assert!(!answer.has_stalled(begun + PATIENCE / 2));
        assert!(answer.has_stalled(begun + PATIENCE));
        handed(&mut answer);
        answer.asked = begun + PATIENCE;
        assert!(!answer.has_stalled(begun + PATIENCE + PATIENCE / 2));
    }
}
