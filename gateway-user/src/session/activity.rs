//! Whether a connection has calls, and since when it has none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is under way on one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Open calls in the lower half, and in the upper one how many have ended, which may overflow.
    calls: AtomicU64,
    /// When the last call ended, in milliseconds since `start`.
    idle_since_ms: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), calls: AtomicU64::new(0), idle_since_ms: AtomicU64::new(0) }
    }

    pub(crate) fn call_started(&self) {
        self.calls.fetch_add(OPEN_CALL, Ordering::Relaxed);
    }

    pub(crate) fn call_ended(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since_ms.store(now, Ordering::Relaxed);
        self.calls.fetch_add(ENDED_CALL - OPEN_CALL, Ordering::Relaxed);
    }

    /// Whether a call is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Relaxed) & (ENDED_CALL - 1) > 0
    }

    /// A number that changes with each call that ends.
    pub(crate) fn ended(&self) -> u64 {
        self.calls.load(Ordering::Relaxed) / ENDED_CALL
    }

    /// When the last call ended; the connection's start before there was one.
    pub(crate) fn idle_since(&self) -> Instant {
        self.start + Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed))
    }
}

const OPEN_CALL: u64 = 1;
const ENDED_CALL: u64 = 1 << 32;
