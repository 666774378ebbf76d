//! HTTP/1.1 as the gateway speaks it to a backend (RFC 9112): from messages to bytes and back, without IO.
//!
//! A response that leaves any doubt about where it ends is refused: what follows it would be taken for the next one.

mod framing;
mod head;

pub use framing::{Chunk, Framing, Piece};
pub(crate) use head::request_head;
pub use head::{Head, take_head};

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Its head is not HTTP.
    #[error("it is not HTTP/1.1: {0}")]
    Head(#[from] httparse::Error),
    /// Its head is too long.
    #[error("its head is longer than {LONGEST_HEAD} bytes")]
    HeadTooLong,
    /// It wants to speak another protocol from now on.
    #[error("it switches protocols")]
    Upgrade,
    /// Its `Content-Length` does not tell its length.
    #[error("it tells its length twice, or not in digits")]
    Length,
    /// It is encoded in a way that was not asked for.
    #[error("its transfer encoding is not `chunked`")]
    TransferEncoding,
    /// A chunk does not tell its size.
    #[error("the size of a chunk cannot be read")]
    ChunkSize,
    /// A chunk is longer than its size.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Its trailers are too long.
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
