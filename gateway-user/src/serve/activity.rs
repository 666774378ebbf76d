//! Deadlines of a connection without a call: how long it may be idle, and how long headers may take.
//!
//! hyper can time a request's headers with a timer a request. Here one timer serves a connection's whole life: it is
//! only looked at while no call is open, and moved only when it fires early.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

/// What is under way on one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    calls: AtomicU32,
    /// Calls that ever started, so that one is noticed that has come and gone; it may wrap.
    started: AtomicU32,
    /// When the last call ended, in milliseconds since `start`.
    idle_since_ms: AtomicU64,
}

/// A connection's byte stream, which ends when a deadline passes without a call.
#[derive(Debug)]
pub(super) struct Timed<S> {
    io: TokioIo<S>,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    /// `None` where headers cannot be told from what else is read: on HTTP/2.
    header_timeout: Option<Duration>,
    /// When the first byte came of headers that are not complete, and how many calls had started by then.
    headers_since: Option<(Instant, u32)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            calls: AtomicU32::new(0),
            started: AtomicU32::new(0),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn call_started(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_ended(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since_ms.store(now, Ordering::Relaxed);
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    fn started(&self) -> u32 {
        self.started.load(Ordering::Relaxed)
    }

    fn idle_since(&self) -> Instant {
        self.start + Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed))
    }
}

impl<S> Timed<S> {
    pub(super) fn new(
        io: S,
        activity: Arc<Activity>,
        idle_timeout: Duration,
        header_timeout: Option<Duration>,
    ) -> Self {
        Self {
            io: TokioIo::new(io),
            activity,
            idle_timeout,
            header_timeout,
            headers_since: None,
            timer: None,
        }
    }

    /// Ready once the connection has waited for too long for a call.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = match (self.headers_since, self.header_timeout) {
                (Some((since, _)), Some(timeout)) => since + timeout,
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
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.activity.is_busy() {
            self.headers_since = None;
            return read;
        }
        // A call that is refused at once is over before anything else is read: its headers were complete.
        let started = self.activity.started();
        self.headers_since = self.headers_since.filter(|(_, before)| *before == started);
        match read {
            Poll::Ready(result) => {
                if self.header_timeout.is_some() && self.headers_since.is_none() {
                    self.headers_since = Some((Instant::now(), started));
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
