//! When there is a flood: what the honest client and the network card agree on.

use std::time::{Duration, Instant};

/// Turns of no flood and of one, again and again; before the first and after the last there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    /// How many turns each has.
    each: u32,
}

/// One turn, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) since: Instant,
    pub(super) flooded: bool,
}

const TURN: Duration = Duration::from_millis(250);
/// The beginning of a turn, in which the last one's calls end: not counted.
const SETTLE: Duration = Duration::from_millis(50);
/// Until connections are made and caches are warm.
const WARM_UP: Duration = Duration::from_millis(1500);

impl Schedule {
    /// So many seconds with a flood and without, from soon on.
    pub(super) fn new(seconds: u64) -> Self {
        let turns = Duration::from_secs(seconds).as_millis() / TURN.as_millis();
        Self { start: Instant::now() + WARM_UP, each: u32::try_from(turns).unwrap_or(u32::MAX) }
    }

    /// The turn that a time belongs to.
    pub(super) fn turn(self, now: Instant) -> Option<Turn> {
        let since_start = now.checked_duration_since(self.start).filter(|_| now < self.end())?;
        let number = u32::try_from(since_start.as_nanos() / TURN.as_nanos()).unwrap_or(u32::MAX);
        Some(Turn { since: self.start + TURN * number, flooded: !number.is_multiple_of(2) })
    }

    /// Whether there was a flood when a call ended; nothing while a turn settles, before the first and after the last.
    pub(super) fn counted(self, now: Instant) -> Option<bool> {
        self.turn(now).filter(|turn| now >= turn.since + SETTLE).map(|turn| turn.flooded)
    }

    pub(super) fn start(self) -> Instant {
        self.start
    }

    pub(super) fn end(self) -> Instant {
        self.start + TURN * self.each * 2
    }

    /// For how long calls are counted with a flood, and for how long without.
    pub(super) fn counted_seconds(self) -> f64 {
        ((TURN - SETTLE) * self.each).as_secs_f64()
    }

    /// For how long there is a flood.
    pub(super) fn flooded_seconds(self) -> f64 {
        (TURN * self.each).as_secs_f64()
    }
}
