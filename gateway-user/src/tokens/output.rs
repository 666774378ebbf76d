//! How many tokens an answer has, counted as it passes.

use super::encoding::{count_text, piece_end};
use crate::model::Encoding;
use crate::units::Tokens;

/// Counts the text of a stream that arrives in pieces of any size, in time proportional to the text.
///
/// Text is held until it is asked to be counted and there is [`ENOUGH_BYTES`] of it, then tokenised up to the last space.
/// Chunks need not end where tokens do, so that counting each by itself would find up to twice as many. A cut between
/// words changes nothing; one in text without spaces may add a token or two, about one in a hundred.
#[derive(Debug)]
pub struct OutputCounter {
    encoding: Encoding,
    counted: Tokens,
    /// Bytes of all the text so far.
    bytes: u64,
    pending: String,
}

impl OutputCounter {
    /// A count of nothing yet.
    #[must_use]
    pub const fn new(encoding: Encoding) -> Self {
        Self { encoding, counted: Tokens::ZERO, bytes: 0, pending: String::new() }
    }

    /// Adds a piece of the answer's text. It is not tokenised before [`Self::count`] says so, or there is too much of it:
    /// an answer whose usage upstream reports at its end needs no count of its last words.
    pub fn push(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len() as u64);
        let mut rest = text;
        while self.pending.len() + rest.len() > MOST_BYTES {
            let room = rest.floor_char_boundary(MOST_BYTES.saturating_sub(self.pending.len()));
            let (fits, after) = rest.split_at(room);
            self.pending.push_str(fits);
            rest = after;
            self.count_most();
        }
        self.pending.push_str(rest);
    }

    /// Tokenises what is held, if that is enough to be worth it.
    pub fn count(&mut self) {
        if self.pending.len() >= ENOUGH_BYTES {
            self.count_most();
        }
    }

    /// Bytes of all the text so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The tokens of the text that has been tokenised; what is still held is not among them.
    #[must_use]
    pub const fn counted(&self) -> Tokens {
        self.counted
    }

    /// All tokens so far. Tokenises what is held, at most [`MOST_BYTES`], each time.
    #[must_use]
    pub fn total(&self) -> Tokens {
        self.counted.saturating_add(count_text(self.encoding, &self.pending))
    }

    /// The most that [`Self::total`] can be, without tokenising: for comparing with a limit that is far away.
    #[must_use]
    pub fn bound(&self) -> Tokens {
        self.counted.saturating_add(Tokens::from_bytes(self.pending.len()))
    }

    fn count_most(&mut self) {
        let end = piece_end(&self.pending, self.pending.len().saturating_sub(LOOKAHEAD_BYTES));
        let (words, _) = self.pending.split_at(end);
        self.counted = self.counted.saturating_add(count_text(self.encoding, words));
        self.pending.drain(..end);
    }
}

/// How much text is worth tokenising.
const ENOUGH_BYTES: usize = 1024;
/// How much text is held at most.
const MOST_BYTES: usize = 8 * 1024;
/// Kept back when the buffer is counted, so that there is always a next character to look at.
const LOOKAHEAD_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROSE: &str = "The gateway counts what passes: a caller that hangs up pays for the prompt and for every token \
        seen. \"Why?\" – because upstream's own figure comes last, and then it's too late.\n\n1. Tokens aren't words;\n";

    fn counted<'a>(encoding: Encoding, pieces: impl IntoIterator<Item = &'a str>) -> u64 {
        let mut counter = OutputCounter::new(encoding);
        for piece in pieces {
            counter.push(piece);
            counter.count();
            assert!(counter.pending.len() < ENOUGH_BYTES);
        }
        counter.total().get()
    }

    #[test]
    fn prose_counts_the_same_in_chunks() {
        let prose = PROSE.repeat(50);
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let whole = count_text(encoding, &prose).get();
            assert_eq!(counted(encoding, [prose.as_str()]), whole);
            assert_eq!(counted(encoding, prose.split_inclusive(' ')), whole);
            assert_eq!(counted(encoding, prose.split("")), whole);
        }
    }

    #[test]
    fn text_that_nobody_asks_to_count_is_not_held_without_bound() {
        let mut counter = OutputCounter::new(Encoding::O200k);
        for _ in 0..100 {
            counter.push(PROSE);
            assert!(counter.pending.len() <= MOST_BYTES);
        }
        assert_eq!(counter.total(), count_text(Encoding::O200k, &PROSE.repeat(100)));
    }

    #[test]
    fn text_without_spaces_counts_nearly_the_same_in_chunks() {
        for text in [
            "東京特許許可局長今日急遽許可却下".repeat(400),
            "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0".repeat(400),
        ] {
            for encoding in [Encoding::O200k, Encoding::Cl100k] {
                let whole = count_text(encoding, &text).get();
                let cut = counted(encoding, text.split(""));
                assert!(cut.abs_diff(whole) * 50 <= whole, "{cut} against {whole}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_split_counts_the_same(words in prop::collection::vec("[a-zA-Z'.,]{1,12}", 300..600), step in 1_usize..3000) {
            let text = words.join(" ");
            let mut counter = OutputCounter::new(Encoding::O200k);
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(step.min(rest.len()));
                counter.push(piece);
                prop_assert!(counter.bound() >= counter.total());
                rest = after;
            }
            prop_assert_eq!(counter.total(), count_text(Encoding::O200k, &text));
        }

        #[test]
        fn any_text_is_counted_within_its_bytes(pieces in prop::collection::vec(any::<String>(), 0..60)) {
            let mut counter = OutputCounter::new(Encoding::Cl100k);
            for piece in &pieces {
                counter.push(piece);
            }
            prop_assert!(counter.total() <= Tokens::from_bytes(pieces.iter().map(String::len).sum()));
        }
    }
}
