//! How many connections a source holds: a signed count that every CPU changes at once.
//!
//! An opening and a closing are one atomic addition each, so no number of CPUs that close connections of one source can
//! make a closing go uncounted. A count that was evicted begins again at its next opening; the closings of connections that
//! opened before the eviction then take it below zero. Readers see such a count as none, and the next opening begins
//! at one, as if each of these closings had found nothing to take off.

use crate::gcra::Word;

/// A [`Word`] that also takes an addition which cannot fail.
pub trait Count: Word {
    /// Adds to the word, in two's complement.
    fn add(&self, change: i64);
}

/// The connections that a word counts.
#[must_use]
#[inline(always)]
pub const fn connections(word: i64) -> u64 {
    if word > 0 { word.cast_unsigned() } else { 0 }
}

/// Counts an opened connection.
///
/// Where a count below zero changes meanwhile, it stays too low by what it was below zero, until an opening finds it so.
#[inline(always)]
pub fn opened(count: &impl Count) {
    let seen = count.load();
    if seen.cast_signed() < 0 && count.replace(seen, 1) {
        return;
    }
    count.add(1);
}

/// Counts a closed connection.
#[inline(always)]
pub fn closed(count: &impl Count) {
    count.add(-1);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    impl Count for AtomicU64 {
        fn add(&self, change: i64) {
            self.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// A word that another CPU always changes first.
    struct Busy(AtomicU64);

    impl Word for Busy {
        fn load(&self) -> u64 {
            Word::load(&self.0)
        }

        fn replace(&self, _seen: u64, _next: u64) -> bool {
            false
        }
    }

    impl Count for Busy {
        fn add(&self, change: i64) {
            self.0.add(change);
        }
    }

    fn held(count: &impl Count) -> u64 {
        connections(count.load().cast_signed())
    }

    #[test]
    fn every_closing_is_counted_however_busy_the_word_is() {
        let busy = Busy(AtomicU64::new(0));
        for _ in 0..10 {
            opened(&busy);
        }
        for _ in 0..9 {
            closed(&busy);
        }
        assert_eq!(held(&busy), 1);
    }

    #[test]
    fn cpus_that_open_and_close_at_once_leave_nothing() {
        let count = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        opened(&count);
                        closed(&count);
                    }
                });
            }
        });
        assert_eq!(held(&count), 0);
    }

    #[test]
    fn closings_from_before_an_eviction_are_not_owed() {
        let count = AtomicU64::new(0);
        opened(&count);
        for _ in 0..100 {
            closed(&count);
        }
        assert_eq!(held(&count), 0);
        opened(&count);
        opened(&count);
        assert_eq!(held(&count), 2);
    }
}
