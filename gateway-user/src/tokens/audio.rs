//! How long a recording in base64 is, by its headers. The sound itself is not decoded.

use super::encoded::Base64;

/// The length of a recording in milliseconds, rounded up, by the header that its `format` has. Nothing where the header is
/// missing, incomplete, or says what the bytes behind it deny.
pub(super) fn milliseconds(data: &str, format: &str) -> Option<u64> {
    let sound = Base64::new(data);
    match format {
        "wav" => wav(sound),
        "mp3" => mp3(sound),
        _ => None,
    }
}

/// RIFF, WAVE form (Microsoft, "Multimedia Programming Interface and Data Specifications 1.0"; `mmreg.h` for the extensible
/// format). All that follows the header of the `data` chunk counts as sound, whatever length the chunk claims.
fn wav(sound: Base64<'_>) -> Option<u64> {
    let head = sound.read::<12>(0)?;
    if !head.starts_with(b"RIFF") || !head.ends_with(b"WAVE") {
        return None;
    }
    let mut at = 12;
    let mut byte_rate = None;
    for _ in 0..WAV_CHUNKS {
        let [name @ .., l0, l1, l2, l3] = sound.read::<8>(at)?;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        match &name {
            b"fmt " => byte_rate = Some(pulse_code_rate(sound, at + 8)?),
            b"data" => {
                let bytes = u64::try_from(sound.most_bytes().saturating_sub(at + 8)).ok()?;
                return Some((bytes * 1000).div_ceil(byte_rate?));
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = at.checked_add(8)?.checked_add(length)?.checked_add(length & 1)?;
    }
    None
}

/// Bytes for a second of uncompressed sound. The other fields have to agree with it: decoders go by them.
fn pulse_code_rate(sound: Base64<'_>, at: usize) -> Option<u64> {
    let [t0, t1, c0, c1, r0, r1, r2, r3, b0, b1, b2, b3, a0, a1, s0, s1] = sound.read::<16>(at)?;
    let mut tag = u16::from_le_bytes([t0, t1]);
    if tag == EXTENSIBLE {
        tag = u16::from_le_bytes(sound.read::<2>(at + 24)?);
    }
    let channels = u32::from(u16::from_le_bytes([c0, c1]));
    let rate = u32::from_le_bytes([r0, r1, r2, r3]);
    let byte_rate = u32::from_le_bytes([b0, b1, b2, b3]);
    let block = u32::from(u16::from_le_bytes([a0, a1]));
    let bits = u32::from(u16::from_le_bytes([s0, s1]));
    let agrees = matches!(tag, PULSE_CODE | FLOAT | A_LAW | MU_LAW)
        && (1..=MOST_CHANNELS).contains(&channels)
        && (8..=64).contains(&bits)
        && (1..=HIGHEST_RATE).contains(&rate)
        && block == channels * bits.div_ceil(8)
        && byte_rate == rate * block;
    agrees.then_some(u64::from(byte_rate))
}

/// Frames of MPEG audio, layer III (ISO 11172-3, 2.4.1.3; ISO 13818-3 for half the rates), behind a tag of `ID3v2`. They are
/// walked one by one, for each may have another bit rate. Sound that no frame accounts for counts as at the lowest of all.
fn mp3(sound: Base64<'_>) -> Option<u64> {
    let mut at = after_tag(sound)?;
    let mut microseconds: u64 = 0;
    let mut frames = 0_u32;
    while frames < MP3_FRAMES
        && let Some(frame) = sound.read::<4>(at).and_then(Frame::of)
    {
        microseconds = microseconds.saturating_add(frame.microseconds);
        at = at.checked_add(frame.bytes)?;
        frames += 1;
    }
    if frames == 0 {
        return None;
    }
    let rest = u64::try_from(sound.most_bytes().saturating_sub(at)).ok()?;
    let rest = rest.saturating_mul(1_000_000) / LOWEST_BYTE_RATE;
    Some(microseconds.saturating_add(rest).div_ceil(1000))
}

/// Where the sound begins: behind a tag (`ID3v2.4`, section 3.1), whose length has seven bits a byte.
fn after_tag(sound: Base64<'_>) -> Option<usize> {
    let [i, d, three, _, _, flags, l0, l1, l2, l3] = sound.read::<10>(0)?;
    if [i, d, three] != *b"ID3" {
        return Some(0);
    }
    let length = [l0, l1, l2, l3].iter().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    let footer = if flags & 0x10 == 0 { 0 } else { 10 };
    Some(10 + length + footer)
}

/// One frame.
struct Frame {
    bytes: usize,
    microseconds: u64,
}

impl Frame {
    fn of(header: [u8; 4]) -> Option<Self> {
        let [sync, version, rates, _] = header;
        if sync != 0xff || version & 0xe6 != 0xe2 {
            return None;
        }
        let (shift, full) = match version >> 3 & 3 {
            3 => (0, true),
            2 => (1, false),
            0 => (2, false),
            _ => return None,
        };
        let rate = *[44_100_u64, 48_000, 32_000].get(usize::from(rates >> 2 & 3))? >> shift;
        let kilobits = if full { FULL_KILOBITS } else { HALF_KILOBITS };
        // The first place is for bit rates that are not told, the last is forbidden.
        let kilobits = *kilobits.get(usize::from(rates >> 4).checked_sub(1)?)?;
        let samples = if full { 1152 } else { 576 };
        let padding = u64::from(rates >> 1 & 1);
        let bytes = samples / 8 * kilobits * 1000 / rate + padding;
        Some(Self { bytes: usize::try_from(bytes).ok()?, microseconds: samples * 1_000_000 / rate })
    }
}

const PULSE_CODE: u16 = 1;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;
const MOST_CHANNELS: u32 = 8;
const HIGHEST_RATE: u32 = 192_000;
/// Chunks before the sound: names, dates, marks.
const WAV_CHUNKS: usize = 64;
/// Half an hour, and more than a body of the usual size holds.
const MP3_FRAMES: u32 = 1 << 16;
/// Eight kilobits a second.
const LOWEST_BYTE_RATE: u64 = 1000;
const FULL_KILOBITS: [u64; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const HALF_KILOBITS: [u64; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// A header for uncompressed sound of one channel and 16 bits, and silence behind it.
    pub(in crate::tokens) fn wav_of(rate: u32, seconds: u32) -> Vec<u8> {
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(rate.to_le_bytes());
        wav.extend((2 * rate).to_le_bytes());
        wav.extend([2, 0, 16, 0]);
        wav.extend(b"data\0\0\0\0");
        wav.resize(wav.len() + usize::try_from(2 * rate * seconds).unwrap(), 0);
        wav
    }

    fn length(bytes: &[u8], format: &str) -> Option<u64> {
        milliseconds(&STANDARD.encode(bytes), format)
    }

    /// Frames of MPEG 1 at 128 kbit/s and 44.1 kHz: 417 bytes, 26 ms.
    fn frames(times: usize) -> Vec<u8> {
        let mut frame = vec![0xff, 0xfb, 0x90, 0xc4];
        frame.resize(417, 0);
        frame.repeat(times)
    }

    #[test]
    fn a_wave_is_as_long_as_its_bytes_at_its_rate() {
        assert_eq!(length(&wav_of(16_000, 3), "wav"), Some(3001));
        let mut spread = wav_of(8000, 2);
        spread.splice(12..12, *b"LIST\x03\0\0\0abc\0");
        assert_eq!(length(&spread, "wav"), Some(2001));
    }

    #[test]
    fn a_wave_whose_header_lies_has_no_length() {
        let wav = wav_of(16_000, 1);
        for (at, byte) in
            [(20, 2), (22, 2), (22, 0), (24, 0xff), (28, 1), (30, 1), (32, 1), (34, 8), (0, b'X')]
        {
            let mut lie = wav.clone();
            lie[at] = byte;
            assert_eq!(length(&lie, "wav"), None, "{at}");
        }
        assert_eq!(length(&wav, "mp3"), None);
        assert_eq!(length(&wav, "pcm16"), None);
        assert_eq!(length(&wav[..40], "wav"), None);
    }

    #[test]
    fn an_mp3_is_as_long_as_its_frames() {
        let near = |length: Option<u64>, expected: u64| length.unwrap().abs_diff(expected) <= 4;
        assert!(near(length(&frames(100), "mp3"), 2612));
        let tagged = [b"ID3\x04\0\0\0\0\x02\x00".as_slice(), &[0; 256], &frames(100)].concat();
        assert!(near(length(&tagged, "mp3"), 2612));
        // What is no frame is heard at the lowest rate.
        let cut = [frames(100), vec![7; 3000], frames(100)].concat();
        assert!(near(length(&cut, "mp3"), 2612 + 3000 + 41_700));
        for none in
            [b"".as_slice(), b"ID3", &[0; 4000], b"\xff\xfb\xf0\xc4aaaaaaa", b"\xff\xfb\x00\xc4aaaaaaa"]
        {
            assert_eq!(length(none, "mp3"), None);
        }
    }

    #[test]
    fn the_walk_over_frames_ends() {
        // The shortest frames that there are, of 24 bytes and 24 ms.
        let mut frame = vec![0xff, 0xf3, 0x14, 0xc4];
        frame.resize(24, 0);
        let many = frame.repeat(3 << 15);
        let length = length(&many, "mp3").unwrap();
        assert!(length >= (3 << 15) * 24, "{length}");
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_usize..4) {
            let starts: [&[u8]; 4] = [b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0", b"ID3\x04\0\0\0\0\0\0\xff\xfb", b"\xff\xf3", b""];
            let sound = [starts[kind], &bytes].concat();
            for format in ["wav", "mp3", ""] {
                if let Some(length) = length(&sound, format) {
                    // No frame is longer than 72 ms.
                    prop_assert!(length <= 72 * u64::try_from(sound.len()).unwrap() + 1000);
                }
            }
        }
    }
}
