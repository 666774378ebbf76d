//! How many frames an HTTP/2 connection may send that are no calls.
//!
//! h2 answers or applies each PING, SETTINGS, PRIORITY, `WINDOW_UPDATE` and `RST_STREAM`, and none of them gets a caller any
//! further: a few bytes that cost the other side a write. What else may be sent for nothing h2 bounds itself: resets of
//! streams that were not looked at yet, continuations, small and empty DATA, streams beyond the most.
//!
//! No IO and no clock. Only the heads of frames are looked at (RFC 9113, 4.1); payloads are passed over by their length.

use std::num::NonZeroU32;

use gateway_ebpf::gcra::Rate;

/// The length of a frame's head.
const HEAD: usize = 9;
/// What a client's connection begins with (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_LENGTH: u32 = 24;
const _: () = assert!(PREFACE.len() == PREFACE_LENGTH as usize);

/// The kinds of frames that are told apart (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// A frame, as far as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its number.
    pub kind: u8,
    /// The bytes of its payload.
    pub length: u32,
}

/// Finds the frames in one direction of a connection, in whatever pieces its bytes come.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Bytes until the next head.
    skip: u32,
    head: [u8; HEAD],
    /// How much of the next head has come.
    known: u8,
}

impl Frames {
    /// What a client sends: frames behind the preface.
    #[must_use]
    pub const fn of_client() -> Self {
        Self { skip: PREFACE_LENGTH, head: [0; HEAD], known: 0 }
    }

    /// What a server sends: frames.
    #[must_use]
    pub const fn of_server() -> Self {
        Self { skip: 0, head: [0; HEAD], known: 0 }
    }

    /// The next frame whose head is complete, and `bytes` as far as they are not read; nothing at their end.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        *bytes = bytes.get(skipped..).unwrap_or_default();
        self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
        let known = usize::from(self.known);
        let wanted = self.head.get_mut(known..)?;
        let taken = wanted.len().min(bytes.len());
        let (piece, rest) = bytes.split_at_checked(taken)?;
        wanted.get_mut(..taken)?.copy_from_slice(piece);
        *bytes = rest;
        if known + taken < HEAD {
            self.known += u8::try_from(taken).unwrap_or_default();
            return None;
        }
        self.known = 0;
        let [high, middle, low, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = length;
        Some(Frame { kind, length })
    }

    /// Whether the bytes so far end with a frame.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.skip == 0 && self.known == 0
    }
}

/// What a connection may still send that is no call: a rate, and some more for each piece of an answer that it was sent,
/// for whoever reads moves windows.
#[derive(Debug, Clone)]
pub struct Allowance {
    rate: Rate,
    word: u64,
    earned: u32,
}

/// Far more than clients send: a ping now and then, and with each call perhaps a priority and two windows.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// As much at once as resets of all the streams that a connection may have, and as many again.
const BURST: NonZeroU32 = NonZeroU32::new(512).unwrap();
/// For each piece of an answer: its stream's window, and the connection's.
const EARNED: u32 = 2;
/// Less in one piece earns nothing, else a caller could have its answer byte by byte, each for a frame of its own.
const LEAST_PIECE: u32 = 64;
/// What of it may be saved up.
const MOST_EARNED: u32 = 64 * 1024;

impl Default for Allowance {
    fn default() -> Self {
        Self { rate: Rate::new(PER_SECOND, BURST), word: 0, earned: 0 }
    }
}

impl Allowance {
    /// Notes a frame that was sent to the caller.
    pub fn sent(&mut self, frame: Frame) {
        let is_answer = frame.kind == HEADERS || (frame.kind == DATA && frame.length >= LEAST_PIECE);
        if is_answer {
            self.earned = (self.earned + EARNED).min(MOST_EARNED);
        }
    }

    /// Charges a frame that the caller sent, at a time in nanoseconds. False where it is one too many.
    pub fn received(&mut self, frame: Frame, now_ns: impl FnOnce() -> u64) -> bool {
        let is_call = frame.kind == HEADERS || (frame.kind == DATA && frame.length > 0);
        if is_call {
            return true;
        }
        if let Some(left) = self.earned.checked_sub(1) {
            self.earned = left;
            return true;
        }
        let admitted = self.rate.admit(self.word, now_ns());
        self.word = admitted.unwrap_or(self.word);
        admitted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Frame = Frame { kind: 6, length: 8 };
    const SECOND: u64 = 1_000_000_000;

    fn all(frames: &mut Frames, mut bytes: &[u8]) -> Vec<Frame> {
        std::iter::from_fn(|| frames.next(&mut bytes)).collect()
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let data = [b"\0\x01\0\0\x01\0\0\0\x01".as_slice(), &[7; 256]].concat();
        let sent = [PREFACE, b"\0\0\0\x04\0\0\0\0\0", &data, b"\0\0\x08\x06\0\0\0\0\0abcdefgh"].concat();
        let expected = [Frame { kind: 4, length: 0 }, Frame { kind: DATA, length: 256 }, PING];
        for size in 1..=sent.len() {
            let mut frames = Frames::of_client();
            let found: Vec<_> = sent.chunks(size).flat_map(|piece| all(&mut frames, piece)).collect();
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn a_frame_is_not_over_before_its_payload() {
        let mut frames = Frames::of_server();
        assert!(frames.is_between());
        assert_eq!(all(&mut frames, b"\0\0\x02"), []);
        assert!(!frames.is_between());
        assert_eq!(all(&mut frames, b"\x06\0\0\0\0\0a"), [Frame { kind: 6, length: 2 }]);
        assert!(!frames.is_between());
        assert_eq!(all(&mut frames, b"b"), []);
        assert!(frames.is_between());
    }

    #[test]
    fn pings_without_end_are_too_many_after_a_burst() {
        let mut allowance = Allowance::default();
        let admitted = (0..10_000).take_while(|_| allowance.received(PING, || SECOND)).count();
        assert_eq!(admitted, 512);
        let later = (0..10_000).take_while(|_| allowance.received(PING, || 2 * SECOND)).count();
        assert_eq!(later, 100);
    }

    #[test]
    fn calls_cost_nothing_and_answers_earn_windows() {
        let mut allowance = Allowance::default();
        let call = [Frame { kind: HEADERS, length: 0 }, Frame { kind: DATA, length: 1 }];
        assert!((0..10_000).all(|_| call.iter().all(|frame| allowance.received(*frame, || SECOND))));
        let window = Frame { kind: 8, length: 4 };
        for _ in 0..10_000 {
            allowance.sent(Frame { kind: DATA, length: 200 });
            assert!(allowance.received(window, || SECOND) && allowance.received(window, || SECOND));
        }
        // Crumbs earn nothing, nor does an empty piece of a body.
        let crumb = Frame { kind: DATA, length: 1 };
        let empty = Frame { kind: DATA, length: 0 };
        let admitted = (0..10_000)
            .take_while(|_| {
                allowance.sent(crumb);
                allowance.received(empty, || SECOND)
            })
            .count();
        assert_eq!(admitted, 512);
    }
}
