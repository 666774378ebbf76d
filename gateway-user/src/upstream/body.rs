//! The body of a request on its way upstream: the caller's own bytes, with the gateway's put in between.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Handed to the connection at once. A longer part goes in pieces, so that what the connection has taken is not far ahead
/// of what it has written.
const PIECE: usize = 64 * 1024;

/// Parts that are sent one after the other; their sum is the `Content-Length`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestBody {
    /// In reverse, so that the next one is popped.
    parts: Vec<Bytes>,
    remaining: u64,
    progress: Option<Progress>,
}

/// Whether a connection has taken all of a request, to be looked at when the request is gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicBool>);

impl Progress {
    pub(super) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl RequestBody {
    /// A body of `parts`, in their order. Empty ones are left out.
    pub(crate) fn new(mut parts: Vec<Bytes>) -> Self {
        parts.retain(|part| !part.is_empty());
        parts.reverse();
        let remaining = parts.iter().map(|part| part.remaining() as u64).sum();
        Self { parts, remaining, progress: None }
    }

    /// Lets `progress` tell how this body fares, whatever it told of others.
    pub(super) fn report_to(&mut self, progress: &Progress) {
        self.progress.insert(progress.clone()).0.store(self.parts.is_empty(), Ordering::Relaxed);
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let part = self.parts.last_mut()?;
        if part.len() > PIECE {
            return Some(part.split_to(PIECE));
        }
        self.parts.pop()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.next_piece();
        self.remaining -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.parts.is_empty()
            && let Some(Progress(complete)) = &self.progress
        {
            complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_body_is_its_parts_in_order_and_tells_when_all_of_it_is_taken() {
        let progress = Progress(Arc::new(AtomicBool::new(true)));
        let parts = [vec![1; PIECE + 1], vec![], vec![2; 3], vec![3; 2 * PIECE]];
        let whole = parts.concat();
        let mut body = RequestBody::new(parts.into_iter().map(Bytes::from).collect());
        body.report_to(&progress);
        let mut taken = Vec::new();
        while !body.is_end_stream() {
            assert!(!progress.is_complete());
            assert_eq!(body.size_hint().exact(), Some((whole.len() - taken.len()) as u64));
            let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(Ok(frame))) = frame else { panic!("a body is always ready") };
            let piece = frame.into_data().unwrap();
            assert!(piece.len() <= PIECE);
            taken.extend_from_slice(&piece);
        }
        assert!(progress.is_complete() && taken == whole);
        RequestBody::default().report_to(&progress);
        assert!(progress.is_complete(), "there is nothing to take");
    }
}
