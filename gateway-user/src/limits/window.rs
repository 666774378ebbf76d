//! A sliding window of one minute, in slots of one second.
//!
//! The sum covers the running slot and the sixty before it, so that *any* sixty seconds lie inside it: what is kept
//! under a limit here is under it for every minute that a caller could pick, not just for clock minutes. The price is
//! that a full budget turns over every 61 seconds.

use std::time::Duration;

use super::Now;

/// Slots that count: sixty whole ones and the running one.
const COUNTED_SLOTS: u64 = 61;
/// What is counted, by age in slots: first what was added in the running second.
pub type Slots = [u32; 61];
/// Slots in the ring: the next power of two, so that a slot's place is a mask away. It divides 2⁶⁴, so that slots before
/// the first, which wrap, have places of their own too.
const RING: usize = 64;
/// By how much two readings of a clock in whole seconds, and the slots that they fall in, can be apart.
const CLOCKS_APART: u64 = 2;

/// What was used in the last minute, by second.
#[derive(Debug, Clone)]
pub struct Window {
    slots: [u32; RING],
    newest: u64,
    total: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: [0; RING], newest: 0, total: 0 }
    }
}

impl Window {
    /// The sum over the window that ends now.
    pub fn used(&mut self, now: Now) -> u64 {
        self.advance(now.slot());
        self.total
    }

    /// Adds to the running slot. A slot holds at most `u32::MAX`; what is beyond is not counted.
    pub fn add(&mut self, now: Now, amount: u64) {
        self.advance(now.slot());
        let slot = &mut self.slots[place(self.newest)];
        let added = u32::try_from(amount).unwrap_or(u32::MAX).min(u32::MAX - *slot);
        *slot += added;
        self.total += u64::from(added);
    }

    /// How long until at least `excess` of what is counted has left the window, exact to a slot; `None` when the
    /// window does not hold that much.
    pub fn wait_until_freed(&mut self, now: Now, excess: u64) -> Option<Duration> {
        self.advance(now.slot());
        let mut freed = 0;
        for age in (0..COUNTED_SLOTS).rev() {
            freed += u64::from(self.slots[place(self.newest.wrapping_sub(age))]);
            if freed >= excess {
                let leaves_at_ms = (self.newest + COUNTED_SLOTS - age) * 1000;
                return Some(Duration::from_millis(leaves_at_ms.saturating_sub(now.monotonic_ms)));
            }
        }
        None
    }

    /// What is counted now, by age.
    pub fn slots(&mut self, now: Now) -> Slots {
        self.advance(now.slot());
        let mut age = 0;
        [(); 61].map(|()| {
            age += 1;
            self.slots[place(self.newest.wrapping_sub(age - 1))]
        })
    }

    /// A window that counts what another one did `elapsed_seconds` ago.
    ///
    /// The seconds of two clocks start at different moments, so that a slot is taken to be up to two seconds younger
    /// than it seems: nothing leaves before it is a minute old.
    #[must_use]
    pub fn restore(slots: &Slots, elapsed_seconds: u64, now: Now) -> Self {
        let mut window = Self { newest: now.slot(), ..Self::default() };
        for (age, amount) in (0..COUNTED_SLOTS).zip(slots) {
            let age = age.saturating_add(elapsed_seconds).saturating_sub(CLOCKS_APART);
            if age < COUNTED_SLOTS {
                let slot = &mut window.slots[place(window.newest.wrapping_sub(age))];
                let added = (*amount).min(u32::MAX - *slot);
                *slot += added;
                window.total += u64::from(added);
            }
        }
        window
    }

    fn advance(&mut self, slot: u64) {
        if slot <= self.newest {
            return;
        }
        if slot - self.newest >= COUNTED_SLOTS {
            self.slots = [0; RING];
            self.total = 0;
        } else {
            for entering in self.newest + 1..=slot {
                // `entering - 61` leaves the sum. In the first minute that wraps, as restored slots did.
                let slot = &mut self.slots[place(entering.wrapping_sub(COUNTED_SLOTS))];
                self.total -= u64::from(*slot);
                *slot = 0;
            }
        }
        self.newest = slot;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked to less than the ring's size first")]
const fn place(slot: u64) -> usize {
    (slot % RING as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ms: ms, utc_seconds: 0 }
    }

    #[test]
    fn what_was_used_counts_for_a_full_minute_and_not_for_two_seconds_more() {
        let mut window = Window::default();
        window.add(at(500), 7);
        assert_eq!(window.used(at(60_499)), 7);
        assert_eq!(window.used(at(60_999)), 7);
        assert_eq!(window.used(at(61_000)), 0);
    }

    #[test]
    fn the_wait_is_until_the_slot_that_frees_enough_has_left() {
        let mut window = Window::default();
        window.add(at(1_000), 10);
        window.add(at(2_000), 10);
        let now = at(30_250);
        assert_eq!(window.wait_until_freed(now, 10), Some(Duration::from_millis(62_000 - 30_250)));
        assert_eq!(window.wait_until_freed(now, 11), Some(Duration::from_millis(63_000 - 30_250)));
        assert_eq!(window.wait_until_freed(now, 21), None);
    }

    #[test]
    fn a_full_slot_saturates() {
        let mut window = Window::default();
        window.add(at(0), u64::MAX);
        window.add(at(0), 5);
        assert_eq!(window.used(at(0)), u64::from(u32::MAX));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_list_of_what_was_added(
            steps in prop::collection::vec((0_u64..20_000, 0_u64..1000), 1..200),
        ) {
            let mut window = Window::default();
            let mut list = Vec::new();
            let mut ms = 0;
            for (step, amount) in steps {
                ms += step;
                window.add(at(ms), amount);
                list.push((ms, amount));
                let counted: u64 =
                    list.iter().filter(|(t, _)| t / 1000 + COUNTED_SLOTS > ms / 1000).map(|(_, a)| a).sum();
                prop_assert_eq!(window.used(at(ms)), counted);
                let minute: u64 = list.iter().filter(|(t, _)| t + 60_000 > ms).map(|(_, a)| a).sum();
                prop_assert!(counted >= minute);
            }
        }

        #[test]
        fn a_restored_window_lets_nothing_go_before_it_is_a_minute_old(
            steps in prop::collection::vec((0_u64..9_000, 1_u64..1000), 1..60),
            dead_ms in 0_u64..90_000, started_ms in 0_u64..3_000, phase_ms in 0_u64..1000, alive_ms in 0_u64..70_000,
        ) {
            // One wall clock for both processes; their monotonic clocks start at different moments of it.
            let wall = |ms: u64| (1_000_000_000 + phase_ms + ms) / 1000;
            let mut window = Window::default();
            let mut list = Vec::new();
            let mut ms = 0;
            for (step, amount) in steps {
                ms += step;
                window.add(at(ms), amount);
                list.push((ms, amount));
            }
            let slots = window.slots(at(ms));
            let restart = ms + dead_ms;
            let elapsed = wall(restart) - wall(ms);
            let mut restored = Window::restore(&slots, elapsed, at(started_ms));
            let real = restart + alive_ms;
            let counted = restored.used(at(started_ms + alive_ms));
            let least: u64 = list.iter().filter(|(t, _)| t + 60_000 > real).map(|(_, a)| a).sum();
            let most: u64 = list.iter().filter(|(t, _)| t + 65_000 > real).map(|(_, a)| a).sum();
            prop_assert!((least..=most).contains(&counted), "{least} <= {counted} <= {most}");
        }

        #[test]
        fn after_the_wait_enough_is_free(
            steps in prop::collection::vec((0_u64..5_000, 1_u64..1000), 1..80), excess in 1_u64..2000,
        ) {
            let mut window = Window::default();
            let mut ms = 0;
            for (step, amount) in steps {
                ms += step;
                window.add(at(ms), amount);
            }
            let before = window.used(at(ms));
            match window.wait_until_freed(at(ms), excess) {
                None => prop_assert!(before < excess),
                Some(wait) => {
                    let then = ms + u64::try_from(wait.as_millis()).unwrap();
                    let mut sooner = window.clone();
                    prop_assert!(before - window.used(at(then)) >= excess);
                    prop_assert!(before - sooner.used(at(then - 1)) < excess);
                }
            }
        }
    }
}
