//! Just enough of HTTP/1.1 (RFC 9112) to find where a message ends: the status, the framing and the body's bytes.

use thiserror::Error;

/// A message that cannot be framed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// The status line is not `HTTP/1.1 NNN …`.
    #[error("malformed status line")]
    StatusLine,
    /// `content-length` is not a number, or a chunk's size is not.
    #[error("malformed length")]
    Length,
    /// A chunk does not end where its size says.
    #[error("malformed chunk")]
    Chunk,
    /// Bytes after the end of the message.
    #[error("bytes after the end of the message")]
    Excess,
}

/// The head of a request or of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes up to and including the empty line.
    pub len: usize,
    /// How the body is delimited.
    pub body: Body,
}

impl Head {
    /// Reads the head at the start of `bytes`; `None` while the empty line has not come.
    ///
    /// # Errors
    ///
    /// [`HttpError::Length`] when `content-length` is not a number.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, HttpError> {
        let mut body = Body::Length(0);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default().trim_ascii_end();
            start = end + 1;
            if line.is_empty() {
                return Ok(Some(Self { len: start, body }));
            }
            if let Some(value) = header(line, b"content-length") {
                body = Body::Length(decimal(value)?);
            } else if header(line, b"transfer-encoding").is_some() {
                body = Body::Chunked(Chunked::Size(0));
            }
        }
        Ok(None)
    }
}

/// The status of the response that `head` begins with.
///
/// # Errors
///
/// [`HttpError::StatusLine`] when there is none.
pub fn status(head: &[u8]) -> Result<u16, HttpError> {
    let digits =
        head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or(HttpError::StatusLine)?;
    decimal(digits).ok().and_then(|status| u16::try_from(status).ok()).ok_or(HttpError::StatusLine)
}

/// What of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// That many bytes.
    Length(u64),
    /// Chunks until the empty one.
    Chunked(Chunked),
}

/// Where in the chunked coding (RFC 9112, 7.1) the next byte belongs. Extensions and trailers are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunked {
    /// In a size, so far this large.
    Size(u64),
    /// In the extension after this size.
    Extension(u64),
    /// In a chunk with that many bytes left.
    Data(u64),
    /// In the line break after a chunk.
    DataEnd,
    /// At the start of a trailer line, or of the empty line that ends the message.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// After the last byte.
    Ended,
}

impl Body {
    /// Whether the last byte has been seen.
    pub const fn ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Ended))
    }

    /// Takes the next bytes of the message, hands those of the body to `sink`, and returns how many belonged to it.
    ///
    /// # Errors
    ///
    /// [`HttpError::Length`] or [`HttpError::Chunk`] when the chunked coding is broken.
    pub fn advance(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, HttpError> {
        match self {
            Self::Length(left) => {
                let (body, _) = split(bytes, *left);
                *left -= body.len() as u64;
                sink(body);
                Ok(body.len())
            }
            Self::Chunked(state) => {
                let mut rest = bytes;
                while !rest.is_empty() && *state != Chunked::Ended {
                    rest = state.advance(rest, &mut sink)?;
                }
                Ok(bytes.len() - rest.len())
            }
        }
    }
}

impl Chunked {
    fn advance<'b>(&mut self, bytes: &'b [u8], sink: &mut impl FnMut(&[u8])) -> Result<&'b [u8], HttpError> {
        if let Self::Data(left) = self {
            let (data, rest) = split(bytes, *left);
            *left -= data.len() as u64;
            sink(data);
            if *left == 0 {
                *self = Self::DataEnd;
            }
            return Ok(rest);
        }
        let Some((byte, rest)) = bytes.split_first() else { return Ok(bytes) };
        *self = match (*self, byte) {
            (Self::Size(0) | Self::Extension(0), b'\n') => Self::TrailerStart,
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size),
            (Self::Size(size), b';' | b'\r') | (Self::Extension(size), _) => Self::Extension(size),
            (Self::Size(size), digit) => {
                let digit = char::from(*digit).to_digit(16).ok_or(HttpError::Length)?;
                Self::Size(size.checked_mul(16).ok_or(HttpError::Length)? + u64::from(digit))
            }
            (Self::DataEnd | Self::TrailerStart, b'\r') => *self,
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::DataEnd, _) => return Err(HttpError::Chunk),
            (Self::TrailerStart, b'\n') => Self::Ended,
            (Self::Trailer, b'\n') => Self::TrailerStart,
            (Self::TrailerStart | Self::Trailer, _) => Self::Trailer,
            (Self::Data(_) | Self::Ended, _) => *self,
        };
        Ok(rest)
    }
}

fn header<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (candidate, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    candidate.eq_ignore_ascii_case(name).then_some(value)
}

fn decimal(text: &[u8]) -> Result<u64, HttpError> {
    let text = str::from_utf8(text.trim_ascii()).map_err(|_utf8| HttpError::Length)?;
    text.parse().map_err(|_number| HttpError::Length)
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in_pieces(body: Body, wire: &[u8], piece: usize) -> (Vec<u8>, Body) {
        let mut body = body;
        let mut seen = Vec::new();
        for piece in wire.chunks(piece) {
            let used = body.advance(piece, |bytes| seen.extend_from_slice(bytes)).unwrap();
            assert_eq!(used, piece.len());
        }
        (seen, body)
    }

    #[test]
    fn a_head_names_the_status_and_the_length() {
        let wire = b"HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: 12\r\n\r\n{}";
        let head = Head::parse(wire).unwrap().unwrap();
        assert_eq!(head, Head { len: wire.len() - 2, body: Body::Length(12) });
        assert_eq!(status(wire), Ok(200));
    }

    #[test]
    fn a_head_that_has_not_ended_is_not_a_head() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"), Ok(None));
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_split() {
        let wire = b"5\r\nhello\r\n1;ext=1\r\n \r\nA\r\nworldworld\r\n0\r\ntrailer: 1\r\n\r\n";
        for piece in 1..=wire.len() {
            let (seen, body) = read_in_pieces(Body::Chunked(Chunked::Size(0)), wire, piece);
            assert_eq!(seen, b"hello worldworld");
            assert!(body.ended());
        }
    }

    #[test]
    fn a_chunk_that_overruns_its_size_is_an_error() {
        let mut body = Body::Chunked(Chunked::Size(0));
        assert_eq!(body.advance(b"2\r\nabc\r\n", |_| ()), Err(HttpError::Chunk));
    }

    #[test]
    fn what_follows_a_body_is_not_taken() {
        let mut body = Body::Length(2);
        assert_eq!(body.advance(b"{}next", |_| ()), Ok(2));
        assert!(body.ended());
    }
}
