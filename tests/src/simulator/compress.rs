//! Answers in gzip, from an upstream that compresses whatever its caller accepts.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A gzip stream (RFC 1952) that is flushed after each part, so that a reader has each part as soon as it came.
#[derive(Debug)]
pub(crate) struct Compressor(GzEncoder<Vec<u8>>);

impl Compressor {
    pub(crate) fn new() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    /// The part, compressed.
    pub(crate) fn part(&mut self, bytes: &[u8]) -> Bytes {
        // A vector takes every byte.
        let written = self.0.write_all(bytes).and_then(|()| self.0.flush());
        written.map(|()| Bytes::from(std::mem::take(self.0.get_mut()))).unwrap_or_default()
    }

    /// What follows the last part: the checksum and the length of what was compressed.
    pub(crate) fn end(self) -> Bytes {
        self.0.finish().map(Bytes::from).unwrap_or_default()
    }
}

/// A body of one piece, compressed.
pub(crate) fn compressed(bytes: &[u8]) -> Bytes {
    let mut compressor = Compressor::new();
    [compressor.part(bytes), compressor.end()].concat().into()
}
