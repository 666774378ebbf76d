//! A content filter that looks at many tokens at once: what the model wrote waits until the filter has its share.

use bytes::{Bytes, BytesMut};

/// Holds the events of a stream back. What is held was generated, and is billed.
#[derive(Debug)]
pub(crate) struct Filter {
    /// How many tokens are looked at together.
    share: u64,
    tokens: u64,
    held: BytesMut,
}

impl Filter {
    pub(crate) fn new(share: u64) -> Self {
        Self { share, tokens: 0, held: BytesMut::new() }
    }

    /// What passes once that event was written, in order: events without tokens pass where nothing is held.
    pub(crate) fn passed(&mut self, event: &[u8], tokens: u64) -> Bytes {
        self.held.extend_from_slice(event);
        self.tokens = self.tokens.saturating_add(tokens);
        if 0 < self.tokens && self.tokens < self.share {
            return Bytes::new();
        }
        self.rest()
    }

    /// What is still held, at the end of the stream.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.tokens = 0;
        self.held.split().freeze()
    }
}
