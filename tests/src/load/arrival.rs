//! A socket that knows when the bytes that were read last came to it, by the kernel's clock.
//!
//! The load generator has one core for hundreds of streams and for the upstream too: how long a chunk waits there until
//! it is read says nothing about the proxy.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::load::process::{monotonic_ns, nanoseconds};

/// A TCP connection whose segments the kernel stamps as they come.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    arrived_ns: u64,
    control: Vec<u8>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        setsockopt(&stream, ReceiveTimestampns, &true)?;
        Ok(Self { stream, arrived_ns: monotonic_ns(), control: nix::cmsg_space!(TimeSpec) })
    }

    /// When the last segment of what was read last came, in nanoseconds of the monotonic clock.
    pub(super) const fn arrived_ns(&self) -> u64 {
        self.arrived_ns
    }

    /// See [`super::connection::Connection::close`].
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { stream, arrived_ns, control } = self;
        stream.try_io(Interest::READABLE, || {
            let mut into = [IoSliceMut::new(buffer)];
            let received =
                recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(control), MsgFlags::MSG_DONTWAIT)?;
            let stamp = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
                _ => None,
            });
            // The kernel begins to stamp a moment after the machine's first socket has asked for it.
            *arrived_ns = stamp.map_or_else(monotonic_ns, monotonic);
            Ok(received.bytes)
        })
    }
}

/// The kernel stamps with the clock of the day, which is brought to the one that runs evenly.
fn monotonic(stamp: TimeSpec) -> u64 {
    let stamp = u64::try_from(stamp.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(stamp.tv_nsec()).unwrap_or(0);
    let ago = nanoseconds(clock_gettime(ClockId::Realtime)).saturating_sub(stamp);
    monotonic_ns().saturating_sub(ago)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        loop {
            ready!(socket.stream.poll_read_ready(context))?;
            match socket.receive(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_are_dated_by_their_arrival_and_not_by_their_reading() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket =
            Socket::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()).unwrap();
        let (mut peer, _address) = listener.accept().await.unwrap();
        let mut byte = [0];
        for _ in 0..50 {
            let before = monotonic_ns();
            peer.write_all(b"x").await.unwrap();
            let written = monotonic_ns();
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.read_exact(&mut byte).await.unwrap();
            // The two clocks are not read at the same instant.
            if (before..=written + 1_000_000).contains(&socket.arrived_ns()) {
                return;
            }
        }
        panic!("never dated between its writing and its reading");
    }
}
