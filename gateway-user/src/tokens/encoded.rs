//! Bytes in base64, of which only the characters that are asked for are decoded, wherever they are.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bytes in base64, readable at any place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base64<'a>(&'a [u8]);

impl<'a> Base64<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// How many bytes these characters hold at most.
    pub(super) fn most_bytes(self) -> usize {
        self.0.len().div_ceil(4) * 3
    }

    pub(super) fn read<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        const { assert!(N <= LONGEST_READ) };
        // Four characters hold three bytes: whole groups of four, from the one that holds the first byte.
        let (group, skipped) = (at / 3, at % 3);
        let start = group.checked_mul(4)?;
        let characters = (skipped + N).div_ceil(3) * 4;
        let end = start.checked_add(characters)?.min(self.0.len());
        let mut decoded = [0; (LONGEST_READ + 2).div_ceil(3) * 3];
        let length = ENGINE.decode_slice(self.0.get(start..end)?, &mut decoded).ok()?;
        decoded.get(..length)?.get(skipped..skipped + N)?.try_into().ok()
    }
}

/// All the bytes that a text in base64 holds; nothing for any other text.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    ENGINE.decode(text).ok()
}

/// The longest header that is read in one piece.
const LONGEST_READ: usize = 24;
/// Padding is accepted where it belongs and where it was left out; bits after the last byte are ignored.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn base64_reads_the_same_at_any_place(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..64) {
            let text = ENGINE.encode(&bytes);
            let expected: Option<[u8; 7]> =
                bytes.get(at..).and_then(|rest| rest.get(..7)).map(|slice| slice.try_into().unwrap());
            prop_assert_eq!(Base64::new(&text).read::<7>(at), expected);
        }
    }
}
