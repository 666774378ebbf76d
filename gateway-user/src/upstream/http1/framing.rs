//! A response's body, out of the bytes that it is framed in.

use bytes::{Buf as _, Bytes, BytesMut};
use httparse::Status;
use memchr::memmem;

use super::{LONGEST_SIZE_LINE, LONGEST_TRAILERS, WireError};

/// How a body is delimited, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are to come.
    Length(u64),
    /// It comes in chunks (RFC 9112, 7.1).
    Chunked(Chunk),
    /// It ends when the connection does.
    UntilClose,
}

/// Where a chunked body has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// The line with the next chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of a chunk's last line.
    End,
    /// Trailers, of which so many bytes have passed. They are not passed on.
    Trailers(usize),
}

/// What the bytes that were read say.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of the body, never empty.
    Data(Bytes),
    /// Nothing, until there are more.
    Incomplete,
    /// That the body is complete.
    End,
}

impl Framing {
    /// A chunked body, from its start.
    #[must_use]
    pub const fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Takes the next piece of the body off the front of what was read. The bytes are not copied.
    ///
    /// # Errors
    /// When they are not framed as they should be. Nothing can be read after that.
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Piece, WireError> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            Self::Length(left) => Ok(take_data(left, read)),
            Self::UntilClose if read.is_empty() => Ok(Piece::Incomplete),
            Self::UntilClose => Ok(Piece::Data(read.split().freeze())),
            Self::Chunked(chunk) => {
                let piece = chunk.take(read)?;
                if piece == Piece::End {
                    *self = Self::Length(0);
                }
                Ok(piece)
            }
        }
    }
}

impl Chunk {
    fn take(&mut self, read: &mut BytesMut) -> Result<Piece, WireError> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(read) {
                    Ok(Status::Complete((line, size))) if line <= LONGEST_SIZE_LINE => {
                        read.advance(line);
                        *self = if size == 0 { Self::Trailers(0) } else { Self::Data(size) };
                    }
                    Ok(Status::Partial) if read.len() < LONGEST_SIZE_LINE => return Ok(Piece::Incomplete),
                    Ok(_) | Err(_) => return Err(WireError::ChunkSize),
                },
                Self::Data(left) => {
                    let piece = take_data(left, read);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(piece);
                }
                Self::End => {
                    let end = read.get(..2).unwrap_or(read);
                    if !b"\r\n".starts_with(end) {
                        return Err(WireError::ChunkEnd);
                    }
                    if end.len() < 2 {
                        return Ok(Piece::Incomplete);
                    }
                    read.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers(passed) => {
                    let line = memmem::find(read, b"\r\n").map(|end| end + 2);
                    if *passed + line.unwrap_or(read.len()) > LONGEST_TRAILERS {
                        return Err(WireError::TrailersTooLong);
                    }
                    let Some(line) = line else { return Ok(Piece::Incomplete) };
                    read.advance(line);
                    *passed += line;
                    if line == 2 {
                        return Ok(Piece::End);
                    }
                }
            }
        }
    }
}

fn take_data(left: &mut u64, read: &mut BytesMut) -> Piece {
    if read.is_empty() {
        return Piece::Incomplete;
    }
    let taken = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= taken as u64;
    Piece::Data(read.split_to(taken).freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and whether it was complete; what was read and does not belong to it stays.
    fn decode<'a>(
        mut framing: Framing,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(Vec<u8>, bool, BytesMut), WireError> {
        let (mut read, mut body) = (BytesMut::new(), Vec::new());
        let mut complete = false;
        for piece in pieces {
            read.extend_from_slice(piece);
            loop {
                match framing.take(&mut read)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Incomplete => break,
                    Piece::End => {
                        complete = true;
                        break;
                    }
                }
            }
        }
        Ok((body, complete, read))
    }

    fn chunked(text: &[u8]) -> Result<(Vec<u8>, bool, BytesMut), WireError> {
        decode(Framing::chunked(), [text])
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let (body, complete, rest) = decode(Framing::Length(3), [&b"ab"[..], b"cHTTP"]).unwrap();
        assert_eq!((body.as_slice(), complete, &rest[..]), (&b"abc"[..], true, &b"HTTP"[..]));
        let (body, complete, _) = decode(Framing::UntilClose, [&b"ab"[..], b"c"]).unwrap();
        assert_eq!((body.as_slice(), complete), (&b"abc"[..], false));
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        let (body, complete, rest) =
            chunked(b"3;name=\"value\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\nHTTP")
                .unwrap();
        assert_eq!((body.as_slice(), complete, &rest[..]), (&b"abc0123456789"[..], true, &b"HTTP"[..]));
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for (text, error) in [
            (&b"x\r\n"[..], WireError::ChunkSize),
            (b"-1\r\n", WireError::ChunkSize),
            (b"ffffffffffffffffff\r\n", WireError::ChunkSize),
            (b"3\r\nabcd\r\n", WireError::ChunkEnd),
            (b"3\r\nabc\n0\r\n", WireError::ChunkEnd),
        ] {
            assert_eq!(chunked(text).unwrap_err(), error, "{}", text.escape_ascii());
        }
        let long = [b"1;", "x".repeat(LONGEST_SIZE_LINE).as_bytes()].concat();
        assert_eq!(chunked(&long).unwrap_err(), WireError::ChunkSize);
        for line in ["a: b\r\n".repeat(LONGEST_TRAILERS / 6 + 1), "x".repeat(LONGEST_TRAILERS + 1)] {
            let trailers = [b"0\r\n", line.as_bytes()].concat();
            assert_eq!(chunked(&trailers).unwrap_err(), WireError::TrailersTooLong);
        }
    }

    proptest! {
        #[test]
        fn chunks_are_read_alike_at_any_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(0_usize..400, 0..12),
            trailer in any::<bool>(),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(if trailer { b"0\r\nx: y\r\n\r\n" } else { b"0\r\n\r\n" });
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
            let (body, complete, rest) = decode(Framing::chunked(), pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(complete && rest.is_empty());
        }

        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let _any = decode(Framing::chunked(), pieces.iter().map(Vec::as_slice));
        }
    }
}
