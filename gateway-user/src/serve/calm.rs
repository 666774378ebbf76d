//! An HTTP/2 connection that is closed where it sends frames without end that are no calls: hyper does not show them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Allowance, Frames};

/// GOAWAY (RFC 9113, 6.8) with `ENHANCE_YOUR_CALM`. Any of its streams may have been a call: none is to be made again for
/// this.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0b";

/// What such a connection ends with.
const TOO_MANY: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// A connection's bytes, with the frames in them counted.
#[derive(Debug)]
pub(super) struct Calm<S> {
    io: S,
    received: Frames,
    sent: Frames,
    allowance: Allowance,
    started: Instant,
}

impl<S> Calm<S> {
    pub(super) fn new(io: S) -> Self {
        let (received, sent) = (Frames::of_client(), Frames::of_server());
        Self { io, received, sent, allowance: Allowance::default(), started: Instant::now() }
    }

    /// Counts what was received. False where it was too much.
    fn receive(&mut self, mut bytes: &[u8]) -> bool {
        let started = self.started;
        let now_ns = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        while let Some(frame) = self.received.next(&mut bytes) {
            if !self.allowance.received(frame, now_ns) {
                return false;
            }
        }
        true
    }

    fn send(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            self.allowance.sent(frame);
        }
    }
}

impl<S: AsyncWrite + Unpin> Calm<S> {
    /// Says why, where the connection takes it at once and nothing is half said.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        if self.sent.is_between()
            && let Poll::Ready(Ok(_)) = Pin::new(&mut self.io).poll_write(cx, GOAWAY)
        {
            // It is closed either way.
            drop(Pin::new(&mut self.io).poll_flush(cx));
        }
    }
}

/// Whether a connection ended over its frames.
pub(super) fn is_flood(error: &hyper::Error) -> bool {
    let Some(source) = std::error::Error::source(error) else { return false };
    if let Some(error) = source.downcast_ref::<io::Error>() {
        return error.kind() == TOO_MANY;
    }
    // Or over those that h2 bounds itself.
    source
        .downcast_ref::<h2::Error>()
        .is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.receive(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Ok(()));
        }
        self.say_goodbye(cx);
        Poll::Ready(Err(io::Error::new(TOO_MANY, "too many frames that are no calls")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.send(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let of_this = left.min(buf.len());
            self.send(buf.get(..of_this).unwrap_or_default());
            left -= of_this;
        }
        Poll::Ready(Ok(written))
    }
}
