//! One kept-alive HTTP/1.1 connection to a backend, driven by the call that uses it.
//!
//! It has no task, no channel and no buffer of its own: the call that is polled writes and reads, and a read buffer exists
//! only while there is something in it. A request or a chunk costs no wake-up of another task, and thousands of open
//! streams stay small.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tokio_util::io::poll_read_buf;

use super::http1::{Framing, Piece, WireError, request_head, take_head};

/// What carries the bytes: TLS, or plain TCP to a loopback address.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A request, with its body in the parts that it is sent in.
pub(crate) type Outgoing = Request<Vec<Bytes>>;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The connection was closed before any of the request was written: it can go over another one.
    #[error("the connection was closed before the request: {0}")]
    Unsent(io::Error),
    /// The connection broke, or what came is no response, after the request, or a part of it, was written.
    #[error("{0}")]
    Broken(#[from] ReceiveError),
}

/// Why a response cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the response cannot be read: {0}")]
    Wire(#[from] WireError),
    #[error("the connection was closed before the end of the response")]
    Closed,
}

/// A connection to a backend, idle or in use by one call.
pub(crate) struct Connection {
    transport: Transport,
    /// Read, and not taken yet.
    read: BytesMut,
    /// How much is read at once: the more, the more there was last time.
    read_size: usize,
    state: State,
    /// Whether the last request was written to its end.
    sent_all: bool,
}

/// What a connection is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing.
    Idle,
    /// The body of a response. Whether another exchange may follow it.
    Receiving(Framing, bool),
    /// An exchange that has not got so far, or that nothing may follow.
    Unusable,
}

impl Connection {
    /// An HTTP connection over a byte stream. Nothing is sent yet.
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, read: BytesMut::new(), read_size: LEAST_READ, state: State::Idle, sent_all: false }
    }

    /// Whether the connection is open and has no exchange under way. Notices a close that has reached the socket.
    pub(crate) fn is_reusable(&mut self) -> bool {
        if self.state != State::Idle || !self.read.is_empty() {
            return false;
        }
        let mut space = [0];
        let mut buffer = ReadBuf::new(&mut space);
        let read = poll_fn(|cx| Pin::new(&mut self.transport).poll_read(cx, &mut buffer));
        // Whatever comes between exchanges, its end or a response that nobody asked for, is the end of it.
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Whether all of the last request was written.
    pub(crate) const fn has_sent_all(&self) -> bool {
        self.sent_all
    }

    /// Sends a request and waits for the head of its response. Until that has come, and where the future is dropped
    /// before, the connection carries nothing else.
    ///
    /// # Errors
    /// [`SendError`] tells whether the request may be sent again.
    pub(crate) async fn send(&mut self, request: &Outgoing) -> Result<Response<()>, SendError> {
        self.state = State::Unusable;
        self.sent_all = false;
        let mut unwritten = Unwritten::new(request_head(request), request.body());
        poll_fn(|cx| self.poll_exchange(&mut unwritten, cx)).await
    }

    fn poll_exchange(
        &mut self,
        unwritten: &mut Unwritten<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, SendError>> {
        let mut write_error = None;
        if !self.sent_all {
            match unwritten.poll_write(&mut self.transport, cx) {
                Poll::Ready(Ok(())) => self.sent_all = true,
                Poll::Ready(Err(error)) if unwritten.is_whole() => {
                    return Poll::Ready(Err(SendError::Unsent(error)));
                }
                // It may have answered before it stopped listening.
                Poll::Ready(Err(error)) => write_error = Some(error),
                Poll::Pending => {}
            }
        }
        loop {
            if let Some(head) = take_head(&mut self.read).map_err(ReceiveError::from)? {
                self.state = State::Receiving(head.framing, head.keep_alive && self.sent_all);
                return Poll::Ready(Ok(head.response));
            }
            let error = match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => continue,
                Poll::Ready(Ok(0)) if unwritten.is_whole() => {
                    return Poll::Ready(Err(SendError::Unsent(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(0)) => ReceiveError::Closed,
                Poll::Ready(Err(error)) if unwritten.is_whole() => {
                    return Poll::Ready(Err(SendError::Unsent(error)));
                }
                Poll::Ready(Err(error)) => error.into(),
                Poll::Pending => match write_error.take() {
                    Some(error) => error.into(),
                    None => return Poll::Pending,
                },
            };
            return Poll::Ready(Err(error.into()));
        }
    }

    /// The next piece of the body of the response that this connection is receiving; nothing once it is complete.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReceiveError>>> {
        loop {
            let State::Receiving(framing, keep_alive) = &mut self.state else { return Poll::Ready(None) };
            let error = match framing.take(&mut self.read) {
                Ok(Piece::Data(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(Piece::End) => {
                    self.state = if *keep_alive { State::Idle } else { State::Unusable };
                    return Poll::Ready(None);
                }
                Ok(Piece::Incomplete) => {
                    let to_the_end = *framing == Framing::UntilClose;
                    match ready!(self.poll_read(cx)) {
                        Ok(1..) => continue,
                        Ok(0) if to_the_end => {
                            self.state = State::Unusable;
                            return Poll::Ready(None);
                        }
                        Ok(0) => ReceiveError::Closed,
                        Err(error) => error.into(),
                    }
                }
                Err(error) => error.into(),
            };
            self.state = State::Unusable;
            return Poll::Ready(Some(Err(error)));
        }
    }

    /// Reads what there is: nothing at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.read_size);
        let room = self.read.capacity() - self.read.len();
        let read = poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.read);
        match &read {
            Poll::Ready(Ok(length)) if *length == room => self.read_size = (room * 2).min(MOST_READ),
            Poll::Ready(Ok(length)) if *length < LEAST_READ => self.read_size = LEAST_READ,
            Poll::Ready(_) => {}
            // A stream costs no memory while nothing comes.
            Poll::Pending if self.read.is_empty() && matches!(self.state, State::Receiving(..)) => {
                self.read = BytesMut::new();
            }
            Poll::Pending => {}
        }
        read
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What is still to be written of a request.
struct Unwritten<'a> {
    head: Bytes,
    body: &'a [Bytes],
    /// How many bytes of head and body have been written.
    written: usize,
}

impl<'a> Unwritten<'a> {
    const fn new(head: Bytes, body: &'a [Bytes]) -> Self {
        Self { head, body, written: 0 }
    }

    /// Whether nothing of it has been written.
    const fn is_whole(&self) -> bool {
        self.written == 0
    }

    fn poll_write(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let used = self.remaining(&mut slices);
            if used == 0 {
                return Pin::new(transport).poll_flush(cx);
            }
            let slices = slices.get(..used).unwrap_or_default();
            match ready!(Pin::new(&mut *transport).poll_write_vectored(cx, slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
    }

    /// Puts what is to be written next into `slices`, and tells how many of them that takes.
    fn remaining<'s>(&'s self, slices: &mut [IoSlice<'s>]) -> usize {
        let mut skipped = self.written;
        let parts = std::iter::once(&self.head).chain(self.body).filter_map(|part| {
            let rest = part.get(skipped..);
            skipped = skipped.saturating_sub(part.len());
            rest.filter(|rest| !rest.is_empty())
        });
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        used
    }
}

/// Read at once where little comes: a stream's chunks.
const LEAST_READ: usize = 4096;
/// Read at once where much comes.
const MOST_READ: usize = 128 * 1024;
/// Parts of a request that are written at once.
const MOST_SLICES: usize = 8;

#[cfg(test)]
mod tests;
