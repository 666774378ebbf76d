//! Rates by the generic cell rate algorithm: a whole limiter in one word.
//!
//! The word is the theoretical arrival time: when the next event would be exactly on pace. An event may come early by the
//! tolerance, which is the burst. It never moves to `now` when events come late and by one interval when they come,
//! so nothing is lost to rounding however often it is asked (ITU-T I.371, annex A).

use core::num::NonZeroU32;

/// A pace and how far ahead of it one may run. Kept in a map, so plain words; nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Between two events on pace.
    pub interval_ns: u64,
    /// How early an event may come: the burst less one, in intervals.
    pub tolerance_ns: u64,
}

const _: () = assert!(size_of::<Rate>() == 16 && align_of::<Rate>() == 8);

/// A limiter's word, wherever it is. The kernel's target has no atomic types, so each side brings its own.
pub trait Word {
    /// The word now.
    fn load(&self) -> u64;
    /// Makes it `next` if it is still `seen`. True when it was.
    fn replace(&self, seen: u64, next: u64) -> bool;
}

/// How often a word is tried again when another CPU changed it meanwhile.
///
/// A source that keeps several CPUs busy on one word loses at most that many events from its account.
const ATTEMPTS: usize = 4;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Rate {
    /// At most `burst` events at once and `per_second` in the long run.
    ///
    /// The interval is rounded up: never more than was asked for.
    #[must_use]
    pub const fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval_ns = NANOS_PER_SECOND.div_ceil(per_second.get() as u64);
        Self { interval_ns, tolerance_ns: interval_ns * (burst.get() as u64 - 1) }
    }

    /// The word after an event at `now_ns`, or nothing when the event is one too many.
    ///
    /// A word further ahead than this rate can bring it was left by a slower one, before the limits were changed. It is
    /// read as a burst spent but for this event, so that new limits hold at once.
    #[must_use]
    #[inline(always)]
    pub fn admit(self, word: u64, now_ns: u64) -> Option<u64> {
        let earliest = now_ns + self.tolerance_ns;
        // The second interval allows for a clock that another CPU read a little later.
        let arrival = if word > earliest + 2 * self.interval_ns { earliest } else { word.max(now_ns) };
        if arrival > earliest { None } else { Some(arrival + self.interval_ns) }
    }

    /// The word of a source's first event.
    #[must_use]
    #[inline(always)]
    pub const fn first(self, now_ns: u64) -> u64 {
        now_ns + self.interval_ns
    }

    /// How long until an event is admitted again: zero when one would be now.
    #[must_use]
    pub const fn wait_ns(self, word: u64, now_ns: u64) -> u64 {
        word.saturating_sub(now_ns).saturating_sub(self.tolerance_ns)
    }

    /// Takes one event from a word that other CPUs take from too. True when it was admitted.
    #[inline(always)]
    pub fn take(self, word: &impl Word, now_ns: u64) -> bool {
        for _ in 0..ATTEMPTS {
            let seen = word.load();
            let Some(next) = self.admit(seen, now_ns) else {
                return false;
            };
            if word.replace(seen, next) {
                return true;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};
    use proptest::prelude::*;
    use std::vec::Vec;

    impl Word for AtomicU64 {
        fn load(&self) -> u64 {
            Self::load(self, Ordering::Relaxed)
        }

        fn replace(&self, seen: u64, next: u64) -> bool {
            self.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }
    }

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_not_one_more() {
        let word = AtomicU64::new(0);
        let admitted = (0..150).filter(|_| rate(50, 100).take(&word, 1_000_000)).count();
        assert_eq!(admitted, 100);
    }

    #[test]
    fn a_flood_leaves_the_configured_rate() {
        // A thousand events a second for ten seconds, far more often than a token arrives.
        let word = AtomicU64::new(0);
        let admitted = (0..10_000_u64).filter(|ms| rate(50, 100).take(&word, ms * 1_000_000)).count();
        assert_eq!(admitted, 100 + 499);
    }

    #[test]
    fn faster_limits_hold_from_the_next_event() {
        let slow = rate(1, 1000);
        let mut word = 0;
        while let Some(next) = slow.admit(word, 0) {
            word = next;
        }
        let fast = rate(1000, 10);
        let resumed = fast.admit(word, 0).unwrap();
        assert_eq!(fast.admit(resumed, 0), None);
        assert_eq!(fast.admit(resumed, 1_000_000), Some(11_000_000));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_pace(
            per_second in 1_u32..10_000,
            burst in 1_u32..500,
            gaps in proptest::collection::vec(0_u64..50_000_000, 1..400),
        ) {
            let rate = rate(per_second, burst);
            let (mut word, mut now, mut admitted) = (0, 1_000_000_000, Vec::new());
            for gap in gaps {
                now += gap;
                if let Some(next) = rate.admit(word, now) {
                    word = next;
                    admitted.push(now);
                }
            }
            for (first, start) in admitted.iter().enumerate() {
                for (last, end) in admitted.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (end - start) / rate.interval_ns;
                    prop_assert!((last - first + 1) as u64 <= allowed + 1);
                }
            }
        }

        #[test]
        fn asking_more_often_admits_no_less(interval_ms in 1_u64..500, steps in 1_u64..5_000) {
            let rate = Rate { interval_ns: interval_ms * 1_000_000, tolerance_ns: 0 };
            let word = AtomicU64::new(0);
            let admitted = (0..=steps).filter(|ms| rate.take(&word, ms * 1_000_000)).count() as u64;
            prop_assert_eq!(admitted, 1 + steps / interval_ms);
        }

        #[test]
        fn a_wait_is_exact(word in 0_u64..1 << 40, now in 0_u64..1 << 40, per_second in 1_u32..10_000, burst in 1_u32..500) {
            let rate = rate(per_second, burst);
            let word = word.min(now + rate.tolerance_ns + rate.interval_ns);
            let wait = rate.wait_ns(word, now);
            prop_assert!(rate.admit(word, now + wait).is_some());
            if let Some(sooner) = wait.checked_sub(1) {
                prop_assert!(rate.admit(word, now + sooner).is_none());
            }
        }
    }
}
