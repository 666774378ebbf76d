//! The pace at which an answer came, and whether it is that of a model or of a buffer.
//!
//! A model gives its answer a token at a time. A buffer on the way does not make the answer slower; it makes it bunch:
//! nothing for long, then everything at once, or as often as the buffer fills. So what is looked at is the fullest tenth
//! of the answer's time. Being a share of the time that the answer took, it asks nothing of the model's speed or of the
//! network's; and what TCP or TLS join on the way, or deliver in parts, moves by milliseconds where a tenth is longer.

use std::time::Duration;

/// Fewer chunks than this show no pace.
pub const FEWEST_CHUNKS: usize = 10;
/// An answer quicker than this has no tenth that is longer than what a busy machine delays by.
pub const SHORTEST_ANSWER: Duration = Duration::from_millis(200);
/// The part of the answer's time that is looked at.
const TENTHS: u32 = 10;

/// When the chunks of an answer came, counted from its request.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    arrivals: Vec<Duration>,
}

/// What a pace shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The chunks came as they were made.
    Streams,
    /// The chunks came together.
    Bunched,
    /// Too few chunks, or in too short a time.
    TooShort,
}

impl Pace {
    /// Notes a chunk; a chunk is never earlier than the one before it.
    pub fn chunk(&mut self, since_request: Duration) {
        self.arrivals.push(since_request);
    }

    /// The number of chunks.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.arrivals.len()
    }

    /// When the first one came.
    #[must_use]
    pub fn first(&self) -> Option<Duration> {
        self.arrivals.first().copied()
    }

    /// When the last one came.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.arrivals.last().copied()
    }

    /// The median time between two of them.
    #[must_use]
    pub fn median_gap(&self) -> Option<Duration> {
        let mut gaps: Vec<_> = self.arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        let middle = gaps.len() / 2;
        (!gaps.is_empty()).then(|| *gaps.select_nth_unstable(middle).1)
    }

    /// The most chunks that came within any tenth of the time from the request to the last chunk.
    #[must_use]
    pub fn fullest_tenth(&self) -> usize {
        let Some(last) = self.last() else { return 0 };
        let tenth = last / TENTHS;
        let within = |(start, &from): (usize, &Duration)| {
            self.arrivals[start..].partition_point(|&at| at - from <= tenth)
        };
        self.arrivals.iter().enumerate().map(within).max().unwrap_or_default()
    }

    /// Streams when no tenth of the time brought half of the chunks, which takes three arrivals or more well apart.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.chunks() < FEWEST_CHUNKS || self.last().is_none_or(|last| last < SHORTEST_ANSWER) {
            Verdict::TooShort
        } else if self.fullest_tenth() * 2 < self.chunks() {
            Verdict::Streams
        } else {
            Verdict::Bunched
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(milliseconds: impl IntoIterator<Item = u64>) -> Pace {
        Pace { arrivals: milliseconds.into_iter().map(Duration::from_millis).collect() }
    }

    /// `clumps` of `size` chunks, half a millisecond apart within a clump and `gap` milliseconds between them.
    fn clumps(first: u64, clumps: u64, size: u64, gap: u64) -> Pace {
        let micros = (0..clumps).flat_map(|clump| {
            (0..size).map(move |chunk| (first + clump * gap) * 1000 + clump * size * 500 + chunk * 500)
        });
        Pace { arrivals: micros.map(Duration::from_micros).collect() }
    }

    #[test]
    fn an_even_pace_streams_even_after_a_long_wait_for_the_first_chunk() {
        assert_eq!(pace((0..60).map(|chunk| 300 + chunk * 20)).verdict(), Verdict::Streams);
        assert_eq!(pace((0..60).map(|chunk| 3_000 + chunk * 20)).verdict(), Verdict::Streams);
    }

    #[test]
    fn an_answer_in_one_piece_is_bunched_however_the_network_cuts_it() {
        assert_eq!(clumps(1_500, 1, 60, 0).verdict(), Verdict::Bunched);
        // Two flights of a slow start, a round trip apart.
        assert_eq!(clumps(1_500, 2, 30, 100).verdict(), Verdict::Bunched);
    }

    #[test]
    fn a_first_chunk_that_hurries_ahead_proves_nothing() {
        let mut pace = pace([200]);
        pace.arrivals.extend(clumps(1_500, 1, 60, 0).arrivals);
        assert_eq!(pace.verdict(), Verdict::Bunched);
    }

    #[test]
    fn a_buffer_that_fills_twice_is_bunched_and_chunks_that_travel_by_threes_are_not() {
        assert_eq!(clumps(700, 2, 30, 700).verdict(), Verdict::Bunched);
        assert_eq!(clumps(300, 20, 3, 60).verdict(), Verdict::Streams);
    }

    #[test]
    fn few_chunks_or_a_quick_answer_show_nothing() {
        assert_eq!(pace((0..9).map(|chunk| chunk * 100)).verdict(), Verdict::TooShort);
        assert_eq!(pace((0..60).map(|chunk| chunk * 2)).verdict(), Verdict::TooShort);
        assert_eq!(Pace::default().verdict(), Verdict::TooShort);
    }

    #[test]
    fn the_figures_are_those_of_the_chunks() {
        let pace = pace([100, 110, 120, 150, 400]);
        assert_eq!((pace.chunks(), pace.fullest_tenth()), (5, 3));
        assert_eq!(pace.first(), Some(Duration::from_millis(100)));
        assert_eq!(pace.median_gap(), Some(Duration::from_millis(30)));
        assert_eq!(Pace::default().median_gap(), None);
    }
}
