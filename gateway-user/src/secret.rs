//! Subscription keys: what callers present, and the hash that alone is kept of one.
//!
//! A key is `aoai_`, 37 random letters and digits (220 bits) and 6 more that spell the CRC-32 of all before them.
//! The checksum keeps typing errors and foreign credentials from ever reaching the directory, and lets scanners of
//! leaked secrets tell a key from noise; it proves nothing, as anyone can compute it. What proves a key is its SHA-256.
//! With 220 bits to guess, a slow or salted hash would add cost and no safety.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A key in the clear. It is wiped from memory when dropped, and shows itself only to [`SubscriptionKey::reveal`].
#[derive(Clone)]
pub struct SubscriptionKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("the system has no randomness to make a key from: {0}")]
    Randomness(getrandom::Error),
}

/// A text that is no key: of another shape, or mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no subscription key: those are `aoai_` and 43 letters and digits that check out")]
pub struct MalformedKey;

impl SubscriptionKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let (prefix, rest) = key.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        fill_random(&mut rest[..RANDOM_DIGITS])?;
        let checksum = checksum(&key[..CHECKED_BYTES]);
        key[CHECKED_BYTES..].copy_from_slice(&checksum);
        Ok(Self(key))
    }

    /// Takes a key that someone presents, without telling whose it is.
    ///
    /// # Errors
    /// When it has not the shape of a key or its checksum is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedKey> {
        match <[u8; KEY_BYTES]>::try_from(text) {
            Ok(key) if is_well_formed(text) => Ok(Self(Zeroizing::new(key))),
            Ok(_) | Err(_) => Err(MalformedKey),
        }
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&*self.0)
    }

    /// The key's text: to be shown once, to the person it is made for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        std::str::from_utf8(&*self.0).unwrap_or_default()
    }
}

impl fmt::Debug for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubscriptionKey(…)")
    }
}

/// Tells whether `text` can be a key at all: its shape and its checksum, no hashing, no allocation.
///
/// Takes the same time for any two texts of a key's length and letters.
#[must_use]
pub fn is_well_formed(text: &[u8]) -> bool {
    text.len() == KEY_BYTES
        && text.starts_with(PREFIX)
        && text[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric)
        && checksum(&text[..CHECKED_BYTES]) == text[CHECKED_BYTES..]
}

/// The SHA-256 of a key's text: all that files and memory hold of it. Equality takes constant time.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; 32]);

/// A text that is no key hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no key hash: those are `sha256:` and 64 hexadecimal digits")]
pub struct MalformedHash;

impl KeyHash {
    /// The hash of what a caller presents.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The bare digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// As files hold it: `sha256:` and 64 lower-case hexadecimal digits.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = MalformedHash;

    fn from_str(text: &str) -> Result<Self, MalformedHash> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(MalformedHash)?.as_bytes();
        if digits.len() != 64 {
            return Err(MalformedHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

const PREFIX: &[u8] = b"aoai_";
const RANDOM_DIGITS: usize = 37;
const CHECKSUM_DIGITS: usize = 6;
const CHECKED_BYTES: usize = PREFIX.len() + RANDOM_DIGITS;
const KEY_BYTES: usize = CHECKED_BYTES + CHECKSUM_DIGITS;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HASH_PREFIX: &str = "sha256:";

fn fill_random(digits: &mut [u8]) -> Result<(), KeyError> {
    // Bytes from 248 on are thrown away: 62 divides 248, so that every digit stays equally likely.
    const FAIR: u8 = 248;
    let mut filled = 0;
    let mut random = Zeroizing::new([0; 64]);
    while filled < digits.len() {
        getrandom::fill(&mut *random).map_err(KeyError::Randomness)?;
        for (digit, byte) in digits[filled..].iter_mut().zip(random.iter().filter(|byte| **byte < FAIR)) {
            *digit = BASE62[usize::from(byte % 62)];
            filled += 1;
        }
    }
    Ok(())
}

/// The CRC-32 of `bytes` in base 62, highest digit first; six digits hold any 32 bits.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_DIGITS] {
    let mut rest = crc32(bytes);
    let mut digits = [0; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// CRC-32 as in ISO 3309 and gzip (RFC 1952, 8).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ CRC32[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        let Some(next) = byte.checked_add(1) else { break table };
        byte = next;
    }
};

fn hex_digit(digit: u8) -> Result<u8, MalformedHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(MalformedHash),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_crc_32_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_new_key_is_prefix_and_43_digits_and_is_taken_back() {
        for _ in 0..200 {
            let key = SubscriptionKey::generate().unwrap();
            let text = key.reveal().to_owned();
            assert_eq!(text.len(), 48);
            assert!(text.strip_prefix("aoai_").unwrap().bytes().all(|b| b.is_ascii_alphanumeric()));
            assert_eq!(SubscriptionKey::parse(text.as_bytes()).unwrap().hash(), KeyHash::of(text.as_bytes()));
        }
    }

    #[test]
    fn all_digits_occur_and_none_is_favoured() {
        let mut seen = [0u32; 256];
        for _ in 0..500 {
            let key = SubscriptionKey::generate().unwrap();
            key.0[PREFIX.len()..CHECKED_BYTES].iter().for_each(|b| seen[usize::from(*b)] += 1);
        }
        // 18,500 digits, 298 of each expected with a deviation of 17: seven of those on either side.
        assert!(BASE62.iter().all(|b| (178..=418).contains(&seen[usize::from(*b)])));
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = SubscriptionKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "SubscriptionKey(…)");
    }

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = KeyHash::of(b"abc");
        assert_eq!(
            hash.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().replace("SHA", "sha").parse(), Ok(hash));
        let bare = hash.to_string().replace("sha256:", "");
        for wrong in ["", "sha256:", "sha256:00", &bare, &format!("{hash}0")] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(MalformedHash), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_one_character_changed_is_noticed(at in 0..KEY_BYTES, digit in 0..62usize) {
            let mut text = SubscriptionKey::generate().unwrap().0;
            prop_assume!(text[at] != BASE62[digit]);
            text[at] = BASE62[digit];
            prop_assert!(!is_well_formed(&*text));
        }

        #[test]
        fn any_two_neighbours_swapped_are_noticed(at in 0..KEY_BYTES - 1) {
            let mut text = SubscriptionKey::generate().unwrap().0;
            prop_assume!(text[at] != text[at + 1]);
            text.swap(at, at + 1);
            prop_assert!(!is_well_formed(&*text));
        }

        #[test]
        fn no_garbage_is_taken(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(SubscriptionKey::parse(&text).err(), Some(MalformedKey));
        }
    }
}
