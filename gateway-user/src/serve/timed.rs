//! Deadlines of a connection without a call: how long it may be idle, and how long headers may take. And pauses, in which
//! nothing is read from a caller that is refused too often.
//!
//! hyper can time a request's headers with a timer a request. Here one timer serves a connection's whole life: it is
//! only looked at while no call is open, and moved only when it fires early.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::session::Activity;

/// A connection's byte stream, which ends when a deadline passes without a call.
#[derive(Debug)]
pub(super) struct Timed<S> {
    io: TokioIo<S>,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    /// `None` where headers cannot be told from what else is read: on HTTP/2.
    header_timeout: Option<Duration>,
    /// Headers that are not complete, unless a call has ended since they began.
    headers: Option<Headers>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The end of a pause.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Headers on their way.
#[derive(Debug, Clone, Copy)]
struct Headers {
    /// When their first byte came.
    since: Instant,
    /// The calls that had ended by then.
    ended: u64,
}

impl<S> Timed<S> {
    pub(super) fn new(
        io: S,
        activity: Arc<Activity>,
        idle_timeout: Duration,
        header_timeout: Option<Duration>,
    ) -> Self {
        let io = TokioIo::new(io);
        Self { io, activity, idle_timeout, header_timeout, headers: None, timer: None, pause: None }
    }

    /// The byte stream itself, once the connection is over.
    pub(super) fn into_inner(self) -> S {
        self.io.into_inner()
    }

    /// When the first byte came of headers that are not complete. What a call made of them may have ended already:
    /// a refusal waits for nothing, so that nothing is read while it is open.
    fn headers_since(&self) -> Option<Instant> {
        self.headers.filter(|headers| headers.ended == self.activity.ended()).map(|headers| headers.since)
    }

    /// Ready while there is no pause.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = self.activity.rests_until() {
            let until = tokio::time::Instant::from_std(until);
            let timer = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
        }
        self.pause = None;
        Poll::Ready(())
    }

    /// Ready once the connection has waited for too long for a call.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = match (self.headers_since(), self.header_timeout) {
                (Some(since), Some(timeout)) => since + timeout,
                (None, _) | (_, None) => self.activity.idle_since() + self.idle_timeout,
            };
            let deadline = tokio::time::Instant::from_std(deadline);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // An earlier time stands: it is cheaper to wake once too often than to move the timer for each call.
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if tokio::time::Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(cx));
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.activity.is_busy() {
            self.headers = None;
            return read;
        }
        match read {
            Poll::Ready(result) => {
                if self.header_timeout.is_some() && self.headers_since().is_none() {
                    self.headers = Some(Headers { since: Instant::now(), ended: self.activity.ended() });
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
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
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::ReadBuf;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection whose headers may take 20 ms, and that has just received some bytes of them.
    async fn headers_begin() -> (Timed<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, mut far) = tokio::io::duplex(64);
        let (idle, headers) = (Duration::from_hours(1), Duration::from_millis(20));
        let mut connection = Timed::new(near, Arc::new(Activity::new()), idle, Some(headers));
        far.write_all(b"GET / HTTP/1.1").await.unwrap();
        read(&mut connection).await.unwrap().unwrap();
        (connection, far)
    }

    /// Polls once: nothing when the connection waits.
    async fn read(connection: &mut Timed<tokio::io::DuplexStream>) -> Option<io::Result<()>> {
        poll_fn(|cx| {
            let mut space = [0; 64];
            let mut buffer = ReadBuf::new(&mut space);
            Poll::Ready(match Pin::new(&mut *connection).poll_read(cx, buffer.unfilled()) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn headers_that_do_not_end_are_timed_out() {
        let (mut connection, _far) = headers_begin().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        let error = read(&mut connection).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nothing_is_read_in_a_pause() {
        let (mut connection, mut far) = headers_begin().await;
        far.write_all(b"more").await.unwrap();
        connection.activity.rest(Duration::from_millis(50));
        assert!(read(&mut connection).await.is_none());
        while read(&mut connection).await.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(connection.activity.rests_until(), None);
    }

    /// A refusal is made without waiting for anything, so that nothing is read while its call is open.
    #[tokio::test]
    async fn a_call_that_ends_at_once_ends_its_headers_too() {
        let (mut connection, mut far) = headers_begin().await;
        connection.activity.call_started();
        connection.activity.call_ended();
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(read(&mut connection).await.is_none(), "the connection is idle");
        far.write_all(b"GET / HTTP/1.1").await.unwrap();
        read(&mut connection).await.unwrap().unwrap();
        assert!(read(&mut connection).await.is_none(), "the next headers have their own time");
    }
}
