//! How far a prompt is tokenised: not at all where its bytes are enough, and no further than to a refusal that is certain.

use super::encoding::LONGEST_TOKEN;
use crate::compute::Stop;
use crate::units::Tokens;

/// Bytes of text that are tokenised in any case: so many tell how long the rest is, and no prompt that is shorter is ever
/// taken for anything but what it is.
const SAMPLE: usize = 4096;
/// A text of so many bytes is not even looked at for that where its bytes alone are too many.
const HUGE: usize = 1 << 20;
/// Bytes to a token, of text of which nothing was tokenised: what prose and programs have.
const USUAL_BYTES: u64 = 4;

/// What a prompt's texts are counted with.
#[derive(Debug)]
pub(super) enum Effort {
    /// Nothing but their bytes, of which no text has fewer than tokens.
    Bytes,
    /// The tokeniser.
    Tokens(Tokenising),
}

/// How far the tokeniser has come.
#[derive(Debug)]
pub(super) struct Tokenising {
    /// More than that is enough.
    most: Tokens,
    stop: Stop,
    /// Bytes that were tokenised, and what they came to.
    pub(super) bytes: u64,
    tokens: u64,
    /// Bytes that were not, because it was enough.
    left_out: u64,
}

impl Tokenising {
    /// All of a prompt, unless it has more tokens than `most`, or nobody waits for it any more.
    pub(super) const fn new(most: Tokens, stop: Stop) -> Self {
        Self { most, stop, bytes: 0, tokens: 0, left_out: 0 }
    }

    /// Whether so many bytes more need not be tokenised: so many tokens were counted, and they are too many, or cannot but be.
    pub(super) fn is_enough(&self, counted: Tokens, bytes: usize) -> bool {
        if self.stop.is_set() {
            return true;
        }
        let least = counted.saturating_add(Tokens::from_bytes(bytes / LONGEST_TOKEN));
        least > self.most && (self.bytes >= SAMPLE as u64 || bytes >= HUGE)
    }

    pub(super) const fn took(&mut self, bytes: usize, tokens: Tokens) {
        self.bytes += bytes as u64;
        self.tokens += tokens.get();
    }

    pub(super) const fn leave_out(&mut self, bytes: usize) {
        self.left_out += bytes as u64;
    }

    /// About how many tokens were left out; nothing where none were.
    pub(super) fn left_out(&self) -> Option<Tokens> {
        if self.left_out == 0 {
            return None;
        }
        let tokens = match self.bytes {
            0 => self.left_out / USUAL_BYTES,
            bytes => {
                let tokens = u128::from(self.left_out) * u128::from(self.tokens) / u128::from(bytes);
                u64::try_from(tokens).unwrap_or(u64::MAX)
            }
        };
        Some(Tokens::new(tokens.max(self.left_out / LONGEST_TOKEN as u64)))
    }
}
