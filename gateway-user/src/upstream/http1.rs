//! HTTP/1.1 as the gateway speaks it to a backend (RFC 9112): from messages to bytes and back, without IO.
//!
//! A response that leaves any doubt about where it ends is refused: what follows it would be taken for the next one.

mod framing;
mod head;

pub(crate) use framing::{Framing, Piece};
pub(crate) use head::{request_head, take_head};

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it is not HTTP/1.1: {0}")]
    Head(#[from] httparse::Error),
    #[error("its head is longer than {LONGEST_HEAD} bytes")]
    HeadTooLong,
    #[error("it switches protocols")]
    Upgrade,
    #[error("it tells its length twice, or not in digits")]
    Length,
    #[error("its transfer encoding is not `chunked`")]
    TransferEncoding,
    #[error("the size of a chunk cannot be read")]
    ChunkSize,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("its trailers are longer than {LONGEST_TRAILERS} bytes")]
    TrailersTooLong,
}

/// The longest head of a response that is read.
const LONGEST_HEAD: usize = 64 * 1024;
/// The most headers of a response that are read.
const MOST_HEADERS: usize = 128;
/// The longest line with a chunk's size, which may have extensions.
const LONGEST_SIZE_LINE: usize = 4096;
/// The longest trailers that are read, all together.
const LONGEST_TRAILERS: usize = 16 * 1024;
