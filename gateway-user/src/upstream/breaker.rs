//! Whether a backend is out. After a few connections in a row that failed, calls pass it over, until one that is tried beside
//! them succeeds. So calls wait for a backend that is not there only until it is found out, and none to find that it is
//! back; and one packet lost, or one front end of many that is being replaced, puts nothing out.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::limits::Now;

/// The state of the way to one backend, as all workers see it.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    up: Gauge,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that failed since one last succeeded.
    failures: u32,
    /// When a connection last succeeded, in milliseconds of the monotonic clock.
    succeeded_ms: u64,
    /// When a connection is tried next, by the same clock; `None` while calls open their own.
    trial_ms: Option<u64>,
}

/// So many connections in a row have to fail, those of calls that wait at once included.
const FAILURES: u32 = 3;
/// From a failure to the first trial. Each further trial waits twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest time between the end of one trial and the start of the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

impl Breaker {
    /// Closed, which `up` shows as 1.
    pub(super) fn new(up: Gauge) -> Self {
        up.set(1);
        Self { state: Mutex::default(), up }
    }

    /// How long until the backend may be back; `None` while it is not out.
    pub(super) fn out(&self, now: Now) -> Option<Duration> {
        let due = self.state.lock().trial_ms?;
        // A trial that is due may be under way.
        Some(Duration::from_millis(due.saturating_sub(now.monotonic_ms)).max(FIRST_PAUSE))
    }

    /// A call's connection has succeeded. One that was begun before the breaker opened does not close it: the next trial will.
    pub(super) fn succeeded(&self, now: Now) {
        let mut state = self.state.lock();
        state.failures = 0;
        state.succeeded_ms = now.monotonic_ms;
    }

    /// A connection that was begun at `begun` has failed. `true` when that opens the breaker: then it is the caller who has
    /// to see to the trials. What was begun before the last success says nothing any more.
    pub(super) fn failed(&self, begun: Now, now: Now) -> bool {
        let mut state = self.state.lock();
        if state.trial_ms.is_some() || begun.monotonic_ms < state.succeeded_ms {
            return false;
        }
        state.failures += 1;
        let opens = state.failures >= FAILURES;
        if opens {
            state.trial_ms = Some(after(now, FIRST_PAUSE));
            self.up.set(0);
        }
        opens
    }

    /// The next trial comes after `pause`.
    pub(super) fn stay_open(&self, now: Now, pause: Duration) {
        self.state.lock().trial_ms = Some(after(now, pause));
    }

    /// A trial succeeded, or there are no more.
    pub(super) fn close(&self, now: Now) {
        let mut state = self.state.lock();
        *state = State { failures: 0, succeeded_ms: now.monotonic_ms, trial_ms: None };
        self.up.set(1);
    }
}

/// How long to wait before the trial after one that came `pause` after the trial before it.
pub(super) fn next_pause(pause: Duration) -> Duration {
    (2 * pause).min(LONGEST_PAUSE)
}

fn after(now: Now, pause: Duration) -> u64 {
    now.monotonic_ms.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(monotonic_ms: u64) -> Now {
        Now { monotonic_ms, utc_seconds: 0 }
    }

    /// A breaker that opened at that time.
    fn opened(ms: u64) -> Breaker {
        let breaker = Breaker::new(Gauge::default());
        assert_eq!([(); 3].map(|()| breaker.failed(at(ms), at(ms))), [false, false, true]);
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let breaker = Breaker::new(Gauge::default());
        assert!(!breaker.failed(at(0), at(1000)));
        assert!(!breaker.failed(at(0), at(1000)));
        assert_eq!((breaker.out(at(1000)), breaker.up.get()), (None, 1));
        assert!(breaker.failed(at(0), at(1000)));
        assert!(!breaker.failed(at(0), at(1001)), "somebody sees to the trials");
        assert_eq!((breaker.out(at(1000)), breaker.up.get()), (Some(FIRST_PAUSE), 0));
    }

    #[test]
    fn failures_among_successes_do_not_open_it() {
        let breaker = Breaker::new(Gauge::default());
        for round in 1..100 {
            let now = 10 * round;
            assert!(!breaker.failed(at(now), at(now + 1)));
            assert!(!breaker.failed(at(now), at(now + 2)));
            breaker.succeeded(at(now + 3));
            assert!(!breaker.failed(at(now), at(now + 4)), "that was begun before another succeeded");
        }
        assert_eq!((breaker.out(at(1000)), breaker.up.get()), (None, 1));
    }

    #[test]
    fn a_late_success_leaves_the_trials_to_close_it() {
        let breaker = opened(1000);
        breaker.succeeded(at(1100));
        assert_eq!((breaker.out(at(1250)), breaker.up.get()), (Some(FIRST_PAUSE), 0));
        breaker.close(at(1300));
        assert_eq!((breaker.out(at(1300)), breaker.up.get()), (None, 1));
    }

    #[test]
    fn it_says_when_the_next_trial_is() {
        let breaker = opened(0);
        breaker.stay_open(at(250), Duration::from_secs(4));
        assert_eq!(breaker.out(at(1250)), Some(Duration::from_secs(3)));
        assert_eq!(breaker.out(at(9999)), Some(FIRST_PAUSE), "it is being tried, however long that takes");
        breaker.close(at(9999));
        assert_eq!((breaker.out(at(9999)), breaker.up.get()), (None, 1));
        for _ in 0..FAILURES {
            assert!(!breaker.failed(at(9998), at(10_100)), "that was begun before it was back");
        }
        let again = [(); 3].map(|()| breaker.failed(at(9999), at(10_100)));
        assert_eq!(again, [false, false, true], "it opens again");
    }

    #[test]
    fn trials_become_rarer_but_do_not_end() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some(next_pause(*pause)));
        let millis: Vec<_> = pauses.take(8).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }
}
