//! Text to tokens, in bounded time whatever the text.

use std::collections::HashSet;
use std::sync::LazyLock;

use tiktoken_rs::CoreBPE;

use crate::model::Encoding;
use crate::units::Tokens;

fn encoder(encoding: Encoding) -> &'static CoreBPE {
    match encoding {
        Encoding::O200k => tiktoken_rs::o200k_base_singleton(),
        Encoding::Cl100k => tiktoken_rs::cl100k_base_singleton(),
    }
}

/// Loads encoders, so that no call waits for one. It takes a good part of a second: not for an async worker.
pub fn preload(encodings: &[Encoding]) {
    for encoding in encodings {
        encoder(*encoding);
    }
}

/// Counts the tokens of a text. The names of special tokens in it count as the plain text that they are.
///
/// The encoder sees at most [`PIECE_BYTES`] at once: it may hold its whole input to be one word, and the pattern that
/// finds words gives up on long ones. Pieces end between words wherever there is a space to end them at, which changes no
/// count; text without spaces is cut between characters, which adds at most two tokens a piece, one in a thousand.
#[must_use]
pub fn count_text(encoding: Encoding, text: &str) -> Tokens {
    let encoder = encoder(encoding);
    let mut rest = text;
    let mut total = Tokens::ZERO;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(piece_end(rest, PIECE_BYTES));
        total = total.saturating_add(count_piece(encoder, piece));
        rest = after;
    }
    total
}

/// Where to end a piece of at most `limit` bytes that starts the text.
///
/// Both encodings let a space only begin a word or follow white space, so that no word spans the place between a visible
/// ASCII character and a space. The second half of the piece is searched for the last such place.
pub(super) fn piece_end(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let bytes = text.as_bytes();
    (limit / 2..limit)
        .rev()
        .find(|&last| bytes[last].is_ascii_graphic() && bytes[last + 1] == b' ')
        .map_or_else(|| text.floor_char_boundary(limit), |last| last + 1)
}

fn count_piece(encoder: &CoreBPE, piece: &str) -> Tokens {
    static NO_SPECIAL_TOKENS: LazyLock<HashSet<&str>> = LazyLock::new(HashSet::new);
    // `encode_ordinary` panics where `encode` returns an error: when the pattern backtracks too often.
    encoder
        .encode(piece, &NO_SPECIAL_TOKENS)
        .map_or_else(|_| Tokens::from_bytes(piece.len()), |(tokens, _)| Tokens::from_bytes(tokens.len()))
}

/// The longest text that an encoder sees at once.
const PIECE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_have_their_published_counts() {
        // OpenAI cookbook, "How to count tokens with tiktoken", section 5.
        for (text, o200k, cl100k) in
            [("antidisestablishmentarianism", 6, 6), ("2 + 2 = 4", 7, 7), ("お誕生日おめでとう", 8, 9)]
        {
            assert_eq!(count_text(Encoding::O200k, text), Tokens::new(o200k), "{text}");
            assert_eq!(count_text(Encoding::Cl100k, text), Tokens::new(cl100k), "{text}");
        }
    }

    #[test]
    fn special_tokens_are_plain_text() {
        assert!(count_text(Encoding::O200k, "<|endoftext|>") > Tokens::new(3));
        assert!(count_text(Encoding::Cl100k, "<|im_start|><|endofprompt|>") > Tokens::new(6));
    }

    #[test]
    fn hostile_text_is_counted_within_its_bounds() {
        let random: String = (0_u32..200_000)
            .scan(12_345_u32, |state, _| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from_u32(u32::from(b'a') + (*state >> 16) % 26)
            })
            .collect();
        let texts = [
            ("a letter", "a".repeat(200_000)),
            ("a capital", "A".repeat(200_000)),
            ("spaces", " ".repeat(200_000)),
            ("spaces and a letter", format!("{}x", " ".repeat(200_000))),
            ("line ends", "\n".repeat(200_000)),
            ("blank lines", " \n".repeat(100_000)),
            ("dashes", "-".repeat(200_000)),
            ("ideographs", "漢".repeat(66_666)),
            ("combining marks", "\u{301}".repeat(100_000)),
            ("no-break spaces", "\u{a0}".repeat(100_000)),
            ("emoji", "👩‍👩‍👧".repeat(11_111)),
            ("digits", "7".repeat(200_000)),
            ("apostrophes", "'s".repeat(100_000)),
            ("alternating case", "aB".repeat(100_000)),
            ("random letters", random),
        ];
        for (name, text) in &texts {
            for encoding in [Encoding::O200k, Encoding::Cl100k] {
                let tokens = count_text(encoding, text).get();
                let bytes = u64::try_from(text.len()).unwrap();
                assert!(tokens <= bytes, "{name}: {tokens}");
                // No token of either vocabulary is longer than 128 bytes.
                assert!(tokens >= bytes / 128, "{name}: {tokens}");
            }
        }
    }

    #[test]
    fn cutting_prose_changes_no_count() {
        let prose = "It was a bright cold day in April, and the clocks were striking thirteen. ".repeat(400);
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let whole = encoder(encoding).encode_ordinary(&prose).len();
            assert_eq!(count_text(encoding, &prose), Tokens::from_bytes(whole));
        }
    }

    #[test]
    fn cutting_text_without_spaces_adds_little() {
        let text = "東京特許許可局長今日急遽許可却下".repeat(1000);
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let whole = u64::try_from(encoder(encoding).encode_ordinary(&text).len()).unwrap();
            let cut = count_text(encoding, &text).get();
            assert!(cut.abs_diff(whole) * 500 <= whole, "{cut} against {whole}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_text_has_no_more_tokens_than_bytes(text in any::<String>()) {
            for encoding in [Encoding::O200k, Encoding::Cl100k] {
                prop_assert!(count_text(encoding, &text) <= Tokens::from_bytes(text.len()));
            }
        }

        #[test]
        fn a_piece_ends_between_characters(text in "[a-z ,漢\u{a0}👩\\n]{0,200}", limit in 8_usize..64) {
            let end = piece_end(&text, limit);
            prop_assert!(text.is_char_boundary(end) && end <= limit.max(text.len()));
            prop_assert!(end > 0 || text.is_empty());
        }

        #[test]
        fn words_are_never_cut(text in "([a-zA-Z0-9'.,;:-]{1,9}( |  | \\n)){40,120}") {
            for encoding in [Encoding::O200k, Encoding::Cl100k] {
                let encoder = encoder(encoding);
                let (mut rest, mut total) = (text.as_str(), 0);
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(piece_end(rest, 64));
                    total += encoder.encode_ordinary(piece).len();
                    rest = after;
                }
                prop_assert_eq!(total, encoder.encode_ordinary(&text).len());
            }
        }
    }
}
