//! What a deployment used in its worst minute.

use std::time::{Duration, Instant};

use crate::simulator::Burst;

/// The most tokens within any stretch of time as long as `span`, its ends included.
#[must_use]
pub fn most_within(timeline: &[Burst], span: Duration) -> u64 {
    let (mut most, mut sum, mut oldest) = (0, 0, 0);
    for newest in timeline {
        sum += newest.tokens;
        while let Some(burst) = timeline.get(oldest)
            && newest.at.saturating_duration_since(burst.at) > span
        {
            sum -= burst.tokens;
            oldest += 1;
        }
        most = most.max(sum);
    }
    most
}

/// The tokens until a moment.
#[must_use]
pub fn total_until(timeline: &[Burst], end: Instant) -> u64 {
    timeline.iter().take_while(|burst| burst.at <= end).map(|burst| burst.tokens).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_minute_is_found_wherever_it_begins() {
        let start = Instant::now();
        let timeline = [(0, 10), (30, 20), (60, 30), (61, 5), (89, 7), (91, 100), (200, 90)]
            .map(|(seconds, tokens)| Burst { at: start + Duration::from_secs(seconds), tokens });
        assert_eq!(most_within(&timeline, Duration::from_mins(1)), 30 + 5 + 7 + 100);
        assert_eq!(most_within(&timeline[..4], Duration::from_mins(1)), 60);
        assert_eq!(most_within(&[], Duration::from_mins(1)), 0);
        assert_eq!(total_until(&timeline, start + Duration::from_secs(61)), 65);
    }
}
