//! Whether a backend is out: after a connection to it failed calls pass it over, until one that is tried beside them
//! succeeds. So calls wait for a backend that is not there only until it is found out, and none to find that it is back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use crate::limits::Now;

/// The state of the way to one backend.
#[derive(Debug)]
pub(super) struct Breaker {
    /// When a connection is tried next, in milliseconds of the monotonic clock; [`CLOSED`] while calls open their own.
    trial_ms: AtomicU64,
    /// When a trial last succeeded, by the same clock.
    closed_ms: AtomicU64,
    up: Gauge,
}

const CLOSED: u64 = u64::MAX;
/// From a failure to the first trial. Each further trial waits twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest time between the end of one trial and the start of the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

impl Breaker {
    /// Closed, which `up` shows as 1.
    pub(super) fn new(up: Gauge) -> Self {
        up.set(1);
        Self { trial_ms: AtomicU64::new(CLOSED), closed_ms: AtomicU64::new(0), up }
    }

    /// How long until the backend may be back; `None` while it is not out.
    pub(super) fn out(&self, now: Now) -> Option<Duration> {
        match self.trial_ms.load(Ordering::Relaxed) {
            CLOSED => None,
            // A trial that is due may be under way.
            due => Some(Duration::from_millis(due.saturating_sub(now.monotonic_ms)).max(FIRST_PAUSE)),
        }
    }

    /// A connection that was begun at `begun` has failed. `true` when that opens the breaker: then it is the caller who has
    /// to see to the trials. What was begun before the last trial succeeded says nothing any more.
    pub(super) fn open(&self, begun: Now, now: Now) -> bool {
        let due = after(now, FIRST_PAUSE);
        let opened = begun.monotonic_ms >= self.closed_ms.load(Ordering::Relaxed)
            && self.trial_ms.compare_exchange(CLOSED, due, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if opened {
            self.up.set(0);
        }
        opened
    }

    /// The next trial comes after `pause`.
    pub(super) fn stay_open(&self, now: Now, pause: Duration) {
        self.trial_ms.store(after(now, pause), Ordering::Relaxed);
    }

    /// A trial succeeded, or there are no more.
    pub(super) fn close(&self, now: Now) {
        self.up.set(1);
        self.closed_ms.store(now.monotonic_ms, Ordering::Relaxed);
        self.trial_ms.store(CLOSED, Ordering::Release);
    }
}

/// How long to wait before the trial after one that came `pause` after the trial before it.
pub(super) fn next_pause(pause: Duration) -> Duration {
    (2 * pause).min(LONGEST_PAUSE)
}

fn after(now: Now, pause: Duration) -> u64 {
    now.monotonic_ms.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(0)).min(CLOSED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(monotonic_ms: u64) -> Now {
        Now { monotonic_ms, utc_seconds: 0 }
    }

    #[test]
    fn one_of_many_failures_opens_it() {
        let breaker = Breaker::new(Gauge::default());
        assert_eq!((breaker.out(at(0)), breaker.up.get()), (None, 1));
        assert!(breaker.open(at(1000), at(1000)));
        assert!(!breaker.open(at(1000), at(1001)), "somebody sees to the trials");
        assert_eq!((breaker.out(at(1000)), breaker.up.get()), (Some(FIRST_PAUSE), 0));
    }

    #[test]
    fn it_says_when_the_next_trial_is() {
        let breaker = Breaker::new(Gauge::default());
        breaker.open(at(0), at(0));
        breaker.stay_open(at(250), Duration::from_secs(4));
        assert_eq!(breaker.out(at(1250)), Some(Duration::from_secs(3)));
        assert_eq!(breaker.out(at(9999)), Some(FIRST_PAUSE), "it is being tried, however long that takes");
        breaker.close(at(9999));
        assert_eq!((breaker.out(at(9999)), breaker.up.get()), (None, 1));
        assert!(!breaker.open(at(9998), at(10_100)), "that was begun before it was back");
        assert!(breaker.open(at(9999), at(10_100)), "it opens again");
    }

    #[test]
    fn trials_become_rarer_but_do_not_end() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some(next_pause(*pause)));
        let millis: Vec<_> = pauses.take(8).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }
}
