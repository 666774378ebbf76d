//! The time as the budgets see it: one reading holds both what windows and what calendar periods need.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the process started; never steps back.
    pub monotonic_ms: u64,
    /// Seconds since 1970-01-01 UTC; steps when the system's clock is set.
    pub utc_seconds: u64,
}

impl Now {
    /// The number of the one-second slot that this moment falls in.
    #[must_use]
    pub const fn slot(self) -> u64 {
        self.monotonic_ms / 1000
    }
}

/// Reads the clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic side starts here.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// A moment that the caller has read already, with the calendar's present time.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Now {
        let since_start = instant.saturating_duration_since(self.start);
        Now {
            monotonic_ms: u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX),
            utc_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs(),
        }
    }
}
