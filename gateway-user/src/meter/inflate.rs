//! A copy of a compressed answer, inflated for the meter. The caller gets the bytes as they came.
//!
//! The gateway asks upstream for plain answers; some answer in gzip all the same.

use std::io::Write as _;

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderValue;

/// Inflates an answer that arrives in pieces of any size, in bounded memory.
#[derive(Debug)]
pub struct Inflater {
    decoder: Decoder,
    /// Bytes inflated so far.
    inflated: usize,
}

#[derive(Debug)]
enum Decoder {
    /// RFC 1952.
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// RFC 1950, which HTTP calls `deflate` (RFC 9110, 8.4.1.2).
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    /// Of an unknown coding, or of bytes that are none of theirs, or of too many of them.
    Unreadable,
}

impl Inflater {
    /// An inflater for a `content-encoding`; nothing where the answer is plain.
    #[must_use]
    pub fn of(encoding: Option<&HeaderValue>) -> Option<Self> {
        let encoding = encoding?.as_bytes().trim_ascii();
        let is = |name: &str| encoding.eq_ignore_ascii_case(name.as_bytes());
        if encoding.is_empty() || is("identity") {
            return None;
        }
        let decoder = if is("gzip") || is("x-gzip") {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
        } else if is("deflate") {
            Decoder::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
        } else {
            Decoder::Unreadable
        };
        Some(Self { decoder, inflated: 0 })
    }

    /// Inflates the next bytes, and calls `read` with what comes out, in pieces of at most a megabyte or so.
    pub fn push(&mut self, bytes: &[u8], mut read: impl FnMut(&[u8])) {
        for piece in bytes.chunks(PIECE_BYTES) {
            let (written, out) = match &mut self.decoder {
                Decoder::Gzip(decoder) => {
                    (decoder.write_all(piece).and_then(|()| decoder.flush()), decoder.get_mut())
                }
                Decoder::Zlib(decoder) => {
                    (decoder.write_all(piece).and_then(|()| decoder.flush()), decoder.get_mut())
                }
                Decoder::Unreadable => return,
            };
            read(out);
            self.inflated = self.inflated.saturating_add(out.len());
            out.clear();
            if written.is_err() || self.inflated > MOST_INFLATED {
                self.decoder = Decoder::Unreadable;
            }
        }
    }

    /// Whether some of what passed could not be read.
    #[must_use]
    pub const fn is_unreadable(&self) -> bool {
        matches!(self.decoder, Decoder::Unreadable)
    }
}

/// Bytes that are inflated at once: deflate makes no more than 1,032 of one.
const PIECE_BYTES: usize = 1024;
/// Bytes beyond which no answer is read.
const MOST_INFLATED: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(encoding: &'static str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut inflater = Inflater::of(Some(&HeaderValue::from_static(encoding))).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            inflater.push(piece, |bytes| out.extend_from_slice(bytes));
        }
        (out, inflater.is_unreadable())
    }

    #[test]
    fn a_plain_answer_needs_none() {
        assert!(Inflater::of(None).is_none());
        assert!(Inflater::of(Some(&HeaderValue::from_static(" Identity "))).is_none());
    }

    #[test]
    fn both_codings_are_read() {
        let text = b"data: {\"choices\":[]}\n\n".repeat(100);
        assert_eq!(inflated("gzip", &[&gzip(&text)]), (text.clone(), false));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        assert_eq!(inflated("deflate", &[&zlib.finish().unwrap()]), (text, false));
    }

    #[test]
    fn a_flushed_piece_is_read_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"first").unwrap();
        encoder.flush().unwrap();
        assert_eq!(inflated("gzip", &[encoder.get_ref()]), (b"first".to_vec(), false));
    }

    #[test]
    fn other_codings_and_broken_bytes_are_unreadable() {
        assert_eq!(inflated("br", &[b"abc"]), (Vec::new(), true));
        assert_eq!(inflated("gzip", &[b"no gzip at all, but text"]), (Vec::new(), true));
        assert!(inflated("gzip, gzip", &[&gzip(b"a")]).1);
    }

    #[test]
    fn a_bomb_is_given_up() {
        let bomb = gzip(&vec![b'a'; MOST_INFLATED + 4 * 1024 * 1024]);
        let mut inflater = Inflater::of(Some(&HeaderValue::from_static("gzip"))).unwrap();
        let (mut total, mut longest) = (0, 0);
        inflater.push(&bomb, |bytes| {
            total += bytes.len();
            longest = longest.max(bytes.len());
        });
        assert!(inflater.is_unreadable());
        assert!(total < MOST_INFLATED + 3 * 1024 * 1024 && longest < 2 * 1024 * 1024, "{total}, {longest}");
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(text in prop::collection::vec(any::<u8>(), 0..3000), cut in 0_usize..3000) {
            let bytes = gzip(&text);
            let (start, end) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(inflated("gzip", &[start, end]), (text, false));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _read = inflated("gzip", &[&bytes]);
            let _read = inflated("deflate", &[&bytes]);
        }
    }
}
