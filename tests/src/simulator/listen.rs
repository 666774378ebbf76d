//! The simulator's sockets: plain HTTP/1.1 on loopback, and beside it TLS with a certificate of its own authority,
//! because identity libraries refuse to ask Entra over anything else.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::body::Reset;
use super::service::{Azure, Connection};

/// A listening socket that several threads accept from.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Door {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn duplicate(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }
}

/// Accepts and serves until `stop` changes; then every connection is dropped with the runtime.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    azure: Arc<Azure>,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error is the other end's being gone, which is a stop as well.
            _ = stop.changed() => return Ok(()),
        };
        // What is wrong with one connection, or with the limit of open files, passes.
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(&azure)));
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, azure: Arc<Azure>) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let reset = Reset::default();
    let socket = Socket { stream, reset: reset.clone() };
    let known = Connection { number: CONNECTIONS.fetch_add(1, Ordering::Relaxed), reset };
    match tls {
        None => exchange(socket, known, azure).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(socket).await {
                exchange(stream, known, azure).await;
            }
        }
    }
}

async fn exchange<S>(stream: S, known: Connection, azure: Arc<Azure>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let (azure, known) = (Arc::clone(&azure), known.clone());
        async move { azure.answer(known, request).await }
    });
    let ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    // A connection that broke is what tests ask for or do; it is in the ledger.
    drop(ended);
}

/// A connection that can be made to end in a reset.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    reset: Reset,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.is_demanded() {
            // Where it cannot be set the connection is closed in order, which the test sees.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
