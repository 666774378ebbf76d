//! The body of a request on its way upstream: the caller's own bytes, with the gateway's put in between.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Parts that are sent one after the other; their sum is the `Content-Length`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestBody {
    /// In reverse, so that the next one is popped.
    parts: Vec<Bytes>,
    remaining: u64,
}

impl RequestBody {
    /// A body of `parts`, in their order. Empty ones are left out.
    pub(crate) fn new(mut parts: Vec<Bytes>) -> Self {
        parts.retain(|part| !part.is_empty());
        parts.reverse();
        let remaining = parts.iter().map(|part| part.remaining() as u64).sum();
        Self { parts, remaining }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop().map(|part| {
            self.remaining -= part.remaining() as u64;
            Ok(Frame::data(part))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
