//! What a connection is doing: whether it has calls, and since when it has none; whether it is to read, or to go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::kernel::{Guest, Idle};
use crate::metrics::ShedReason;

/// What is under way on one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Open calls in the lower half, and in the upper one how many have ended, which may overflow.
    calls: AtomicU64,
    /// When the last call ended, in milliseconds since `start`.
    idle_since_ms: AtomicU64,
    /// Whether a tenant's key was shown.
    known: AtomicBool,
    /// Whether the last request was answered before all of its body had come.
    cut_short: AtomicBool,
    /// Until when nothing is read, in milliseconds since `start`; zero while reading goes on.
    rests_until_ms: AtomicU64,
    /// Why it was asked to make room, if it was.
    asked_to_go: Mutex<Option<ShedReason>>,
    asked: Notify,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            calls: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            known: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            rests_until_ms: AtomicU64::new(0),
            asked_to_go: Mutex::new(None),
            asked: Notify::new(),
        }
    }

    pub(crate) fn call_started(&self) {
        self.calls.fetch_add(OPEN_CALL, Ordering::Relaxed);
    }

    pub(crate) fn call_ended(&self) {
        self.idle_since_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        self.calls.fetch_add(ENDED_CALL - OPEN_CALL, Ordering::Relaxed);
    }

    /// A tenant's key was shown.
    pub(crate) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// A request was answered before all of its body had come, and its caller may still be sending.
    pub(crate) fn cut_short(&self) {
        self.cut_short.store(true, Ordering::Relaxed);
    }

    /// Whether [`cut_short`](Self::cut_short) was said.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.cut_short.load(Ordering::Relaxed)
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

    /// Reads nothing for a time from now on, or for longer where that was said before.
    pub(crate) fn rest(&self, time: Duration) {
        let until = self.elapsed_ms().saturating_add(milliseconds(time));
        self.rests_until_ms.fetch_max(until, Ordering::Relaxed);
    }

    /// Until when nothing is read. Nothing once that has passed.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        let until = self.rests_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        if until <= self.elapsed_ms() {
            // Where it was put off meanwhile, that stands: nothing is lost but this look.
            let passed = self.rests_until_ms.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return passed.err().map(|later| self.start + Duration::from_millis(later));
        }
        Some(self.start + Duration::from_millis(until))
    }

    /// Waits until it has to make room for another, and has no call; says why.
    pub(crate) async fn gives_way(&self) -> ShedReason {
        loop {
            self.asked.notified().await;
            let mut asked_to_go = self.asked_to_go.lock();
            match *asked_to_go {
                Some(reason) if !self.is_busy() => return reason,
                _ => *asked_to_go = None,
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }
}

impl Guest for Activity {
    fn idle(&self) -> Option<Idle> {
        if self.is_busy() || self.asked_to_go.lock().is_some() {
            return None;
        }
        Some(Idle { known: self.known.load(Ordering::Relaxed), since: self.idle_since() })
    }

    fn give_way(&self, reason: ShedReason) {
        *self.asked_to_go.lock() = Some(reason);
        self.asked.notify_one();
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const OPEN_CALL: u64 = 1;
const ENDED_CALL: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_asked_to_go_does_so_without_a_call() {
        let activity = Activity::new();
        activity.call_started();
        assert!(activity.idle().is_none());
        activity.give_way(ShedReason::Full);
        let gone = tokio::time::timeout(Duration::from_millis(20), activity.gives_way()).await;
        assert!(gone.is_err(), "not with one");
        activity.call_ended();
        assert!(activity.idle().is_some(), "and may be asked again");
        activity.give_way(ShedReason::Concurrent);
        assert!(activity.idle().is_none(), "once");
        assert_eq!(activity.gives_way().await, ShedReason::Concurrent);
    }

    #[test]
    fn a_rest_ends_by_itself() {
        let activity = Activity::new();
        assert_eq!(activity.rests_until(), None);
        activity.rest(Duration::from_hours(1));
        activity.rest(Duration::from_millis(1));
        assert!(activity.rests_until().unwrap() > Instant::now() + Duration::from_mins(59));
        let activity = Activity::new();
        activity.rest(Duration::from_millis(1));
        while activity.rests_until().is_some() {
            std::thread::yield_now();
        }
    }
}
