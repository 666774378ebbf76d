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
    let mut rest = text;
    let mut total = Tokens::ZERO;
    while !rest.is_empty() {
        let (piece, after) = first_piece(rest);
        total = total.saturating_add(count_piece(encoding, piece));
        rest = after;
    }
    total
}

/// The first piece of a text, and the rest.
pub(super) fn first_piece(text: &str) -> (&str, &str) {
    text.split_at(piece_end(text, PIECE_BYTES))
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

/// Counts the tokens of a text that is no longer than a piece.
pub(super) fn count_piece(encoding: Encoding, piece: &str) -> Tokens {
    static NO_SPECIAL_TOKENS: LazyLock<HashSet<&str>> = LazyLock::new(HashSet::new);
    // `encode_ordinary` panics where `encode` returns an error: when the pattern backtracks too often.
    encoder(encoding)
        .encode(piece, &NO_SPECIAL_TOKENS)
        .map_or_else(|_| Tokens::from_bytes(piece.len()), |(tokens, _)| Tokens::from_bytes(tokens.len()))
}

/// The most bytes that a token stands for, in either vocabulary: a run of blanks.
pub(super) const LONGEST_TOKEN: usize = 128;
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
                assert!(tokens >= bytes / LONGEST_TOKEN as u64, "{name}: {tokens}");
            }
        }
    }

    #[test]
    fn no_token_is_longer_than_is_said() {
        // Numbers beyond the vocabulary, and the gaps before its special tokens, stand for nothing.
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let encoder = encoder(encoding);
            let lengths = (0..200_100_u32).filter_map(|id| Some(encoder.decode_bytes(&[id]).ok()?.len()));
            let (count, longest) =
                lengths.fold((0, 0), |(count, longest), length| (count + 1, longest.max(length)));
            assert!(count > 100_000, "{count}");
            assert_eq!(longest, LONGEST_TOKEN, "{encoding:?}");
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
