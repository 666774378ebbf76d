//! A sliding window of one minute, in slots of one second.
//!
//! A slot counts until a minute after the *last* that was added to it, so that *any* sixty seconds lie inside the window:
//! what is kept under a limit here is under it for every minute that a caller could pick, not just for clock minutes. And
//! nothing counts for longer than a minute from now, so that no wait is longer: clients give up on longer ones.

use std::time::Duration;

use super::Now;

/// How long what is added counts.
const MINUTE_MS: u64 = 60_000;
/// Slots that may count: the running one and those that began within the minute before it.
const COUNTED_SLOTS: u64 = 61;
/// What is counted, by age in slots: first what was added in the running second.
pub type Slots = [u32; 61];
/// Slots in the ring: the next power of two, so that a slot's place is a mask away. It divides 2⁶⁴, so that slots before
/// the first, which wrap, have places of their own too.
const RING: usize = 64;
/// The last millisecond of a slot.
const LAST_OF_SLOT: u16 = 999;
/// By how much two readings of a clock in whole seconds, and the slots that they fall in, can be apart.
const CLOCKS_APART: u64 = 2;

/// What was used in the last minute, by second.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// `None` where nothing was added since the window [rested](Self::rest), so that who makes no calls takes no memory.
    ring: Option<Box<Ring>>,
    newest: u64,
    total: u64,
}

#[derive(Debug, Clone)]
struct Ring {
    slots: [u32; RING],
    /// In which millisecond of its slot the last was added.
    last_ms: [u16; RING],
}

impl Default for Ring {
    fn default() -> Self {
        Self { slots: [0; RING], last_ms: [0; RING] }
    }
}

impl Window {
    /// The sum over the window that ends now.
    pub fn used(&mut self, now: Now) -> u64 {
        self.advance(now);
        self.total
    }

    /// What of that was added since a moment, or in the same second before it.
    pub fn used_since(&mut self, now: Now, since_ms: u64) -> u64 {
        self.advance(now);
        let Some(ring) = &self.ring else { return 0 };
        let slots = self.newest.saturating_sub(since_ms / 1000).min(COUNTED_SLOTS - 1);
        (0..=slots).map(|age| u64::from(ring.slots[place(self.newest.wrapping_sub(age))])).sum()
    }

    /// Adds to the running slot. A slot holds at most `u32::MAX`; what is beyond is not counted.
    pub fn add(&mut self, now: Now, amount: u64) {
        self.advance(now);
        if amount == 0 {
            return;
        }
        // Where the clock reads less than it has before, the slot's end stands.
        let last_ms = if now.slot() == self.newest { millisecond(now) } else { LAST_OF_SLOT };
        let ring = self.ring.get_or_insert_default();
        self.total += ring.add(place(self.newest), amount, last_ms);
    }

    /// Gives back the memory of a window in which nothing counts any more.
    pub fn rest(&mut self, now: Now) {
        if self.used(now) == 0 {
            self.ring = None;
        }
    }

    /// How long until at least `excess` of what is counted has left the window, exact to the additions of one second; at
    /// most a minute. `None` when the window does not hold that much.
    pub fn wait_until_freed(&mut self, now: Now, excess: u64) -> Option<Duration> {
        self.advance(now);
        let ring = self.ring.as_ref()?;
        let mut freed = 0;
        for age in (0..COUNTED_SLOTS).rev() {
            let place = place(self.newest.wrapping_sub(age));
            freed += u64::from(ring.slots[place]);
            if freed >= excess {
                let leaves_at_ms =
                    self.newest * 1000 + u64::from(ring.last_ms[place]) + MINUTE_MS - age * 1000;
                return Some(Duration::from_millis(leaves_at_ms.saturating_sub(now.monotonic_ms)));
            }
        }
        None
    }

    /// What is counted now, by age.
    pub fn slots(&mut self, now: Now) -> Slots {
        self.advance(now);
        let mut slots = [0; 61];
        if let Some(ring) = &self.ring {
            for (age, slot) in (0..COUNTED_SLOTS).zip(&mut slots) {
                *slot = ring.slots[place(self.newest.wrapping_sub(age))];
            }
        }
        slots
    }

    /// A window that counts what another one did `elapsed_seconds` ago.
    ///
    /// The seconds of two clocks start at different moments, so that a slot is taken to be up to two seconds younger
    /// than it seems, and to have been filled at its end: nothing leaves before it is a minute old.
    #[must_use]
    pub fn restore(slots: &Slots, elapsed_seconds: u64, now: Now) -> Self {
        let mut window = Self { newest: now.slot(), ..Self::default() };
        for (age, amount) in (0..COUNTED_SLOTS).zip(slots) {
            let age = age.saturating_add(elapsed_seconds).saturating_sub(CLOCKS_APART);
            if age < COUNTED_SLOTS && *amount > 0 {
                let ring = window.ring.get_or_insert_default();
                let place = place(window.newest.wrapping_sub(age));
                window.total += ring.add(place, u64::from(*amount), LAST_OF_SLOT);
            }
        }
        window
    }

    fn advance(&mut self, now: Now) {
        let slot = now.slot();
        if slot < self.newest {
            return;
        }
        let before = std::mem::replace(&mut self.newest, slot);
        let Some(ring) = &mut self.ring else { return };
        if slot - before >= COUNTED_SLOTS {
            **ring = Ring::default();
            self.total = 0;
            return;
        }
        for entering in before + 1..=slot {
            // What is 61 slots old leaves. In the first minute that wraps, as restored slots did.
            self.total -= ring.empty(place(entering.wrapping_sub(COUNTED_SLOTS)));
        }
        // The slot of 60 seconds ago leaves in the millisecond in which the last was added to it.
        let oldest = place(slot.wrapping_sub(COUNTED_SLOTS - 1));
        if millisecond(now) >= ring.last_ms[oldest] {
            self.total -= ring.empty(oldest);
        }
    }
}

impl Ring {
    /// Adds what fits into a slot, and gives how much that is.
    fn add(&mut self, place: usize, amount: u64, last_ms: u16) -> u64 {
        let slot = &mut self.slots[place];
        let added = u32::try_from(amount).unwrap_or(u32::MAX).min(u32::MAX - *slot);
        *slot += added;
        self.last_ms[place] = last_ms.max(self.last_ms[place]);
        u64::from(added)
    }

    /// Empties a slot, and gives what was in it.
    fn empty(&mut self, place: usize) -> u64 {
        self.last_ms[place] = 0;
        u64::from(std::mem::take(&mut self.slots[place]))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked to less than the ring's size first")]
const fn place(slot: u64) -> usize {
    (slot % RING as u64) as usize
}

const fn millisecond(now: Now) -> u16 {
    (now.monotonic_ms % 1000) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { monotonic_ms: ms, utc_seconds: 0 }
    }

    #[test]
    fn what_was_used_counts_for_a_minute_and_no_longer() {
        let mut window = Window::default();
        window.add(at(500), 7);
        assert_eq!(window.used(at(60_499)), 7);
        assert_eq!(window.used(at(60_500)), 0);
    }

    #[test]
    fn a_slot_counts_until_its_last_addition_is_a_minute_old() {
        let mut window = Window::default();
        window.add(at(5_100), 1);
        window.add(at(5_900), 1);
        assert_eq!(window.used(at(65_899)), 2);
        assert_eq!(window.used(at(65_900)), 0);
        window.add(at(125_050), 1);
        assert_eq!(window.wait_until_freed(at(125_050), 1), Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_wait_is_until_the_slot_that_frees_enough_has_left() {
        let mut window = Window::default();
        window.add(at(1_000), 10);
        window.add(at(2_000), 10);
        let now = at(30_250);
        assert_eq!(window.wait_until_freed(now, 10), Some(Duration::from_millis(61_000 - 30_250)));
        assert_eq!(window.wait_until_freed(now, 11), Some(Duration::from_millis(62_000 - 30_250)));
        assert_eq!(window.wait_until_freed(now, 21), None);
    }

    #[test]
    fn a_window_rests_only_when_nothing_counts_and_counts_again_afterwards() {
        let mut window = Window::default();
        window.add(at(500), 7);
        window.rest(at(60_499));
        assert_eq!(window.used(at(60_499)), 7);
        window.rest(at(60_500));
        assert!(window.ring.is_none());
        assert_eq!((window.used(at(70_000)), window.wait_until_freed(at(70_000), 1)), (0, None));
        window.add(at(70_000), 3);
        assert_eq!(window.used(at(129_999)), 3);
        assert_eq!(window.used(at(130_000)), 0);
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
                // A slot counts as a whole, by the last addition to it.
                let last = |t: u64| list.iter().filter(|(u, a)| u / 1000 == t / 1000 && *a > 0).map(|(u, _)| *u).max();
                let counts = |t: u64| last(t).is_some_and(|last| last + MINUTE_MS > ms);
                let counted: u64 = list.iter().filter(|(t, _)| counts(*t)).map(|(_, a)| a).sum();
                prop_assert_eq!(window.used(at(ms)), counted);
                let minute: u64 = list.iter().filter(|(t, _)| t + MINUTE_MS > ms).map(|(_, a)| a).sum();
                prop_assert!(counted >= minute);
                for since in [0, ms.saturating_sub(61_000), ms.saturating_sub(30_500), ms] {
                    let recent = |t: u64| t / 1000 >= since / 1000 && counts(t);
                    let counted: u64 = list.iter().filter(|(t, _)| recent(*t)).map(|(_, a)| a).sum();
                    prop_assert_eq!(window.used_since(at(ms), since), counted);
                }
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
                    prop_assert!(wait <= Duration::from_millis(MINUTE_MS));
                    prop_assert!(before - sooner.used(at(then - 1)) < excess);
                }
            }
        }
    }
}
