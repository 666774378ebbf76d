//! Serving: connections are accepted on one thread and handed to workers, each with a runtime of its own.
//!
//! A call never leaves its worker: the connection to the caller, the one to the backend and the timers between them are
//! all registered with that worker's reactor, so that nothing crosses threads while bytes flow.

mod calm;
mod connection;
pub mod descriptors;
mod door;
pub mod frames;
mod linger;
mod open;
pub mod proxy_protocol;
mod timed;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::{Semaphore, watch};

use crate::config::Listen;
use crate::gateway::Gateway;
use crate::supervise::Supervisor;
use crate::tcp::RECEIVE_BUFFER;
use door::Door;
use worker::Worker;

/// How long to wait when the process has no file descriptor left to accept with.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// From the end of `listen.drain_timeout`, when responses that are open are told to end, to their being cut. Each is
/// looked after every 400 ms.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// The certificate in use; replaced whole when its files change.
pub type Tls = Arc<ArcSwap<ServerConfig>>;

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The certificate in use.
    pub tls: Tls,
    /// The owner of the workers' threads.
    pub supervisor: Supervisor,
}

/// A listening socket and the workers behind it.
#[derive(Debug)]
pub struct Server {
    listener: tokio::net::TcpListener,
    open: Open,
}

/// The workers of a server that does not listen any more.
#[derive(Debug)]
pub struct Draining(Open);

/// The workers with their connections.
#[derive(Debug)]
struct Open {
    workers: Vec<Worker>,
    door: Door,
    max_connections: usize,
    draining: watch::Sender<bool>,
}

/// Why serving cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// The system gives no random bytes.
    #[error("the system has no randomness for request ids: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl Server {
    /// Starts the workers behind a listener from [`bind`].
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(shared: &Shared, listen: &Listen, listener: TcpListener) -> Result<Self, ServeError> {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|source| ServeError::Listen { address: listen.address, source })?;
        let (draining, drain) = watch::channel(false);
        let count =
            listen.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let workers =
            (0..count).map(|number| Worker::start(number, shared, &drain)).collect::<Result<_, _>>()?;
        let max_connections = listen.max_connections.get().min(Semaphore::MAX_PERMITS);
        let open = Open {
            workers,
            door: Door {
                gateway: Arc::clone(&shared.gateway),
                connections: Arc::new(Semaphore::new(max_connections)),
            },
            max_connections,
            draining,
        };
        Ok(Self { listener, open })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections for ever.
    pub async fn accept(&self) {
        let Open { workers, door, .. } = &self.open;
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // While one waits for room, further ones wait in the kernel's queue.
                    let Some(entered) = door.enter(peer).await else { continue };
                    // Where all have ended, the process is about to.
                    if let Some(worker) = Worker::least_busy(workers) {
                        worker.take(stream, peer, entered).await;
                    }
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::error!(error = %error, "cannot accept connections");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    }

    /// Stops listening, and tells connections to end after the calls that are open on them.
    #[must_use]
    pub fn close(self) -> Draining {
        let Self { listener, open } = self;
        drop(listener);
        open.draining.send_replace(true);
        Draining(open)
    }
}

impl Draining {
    /// Waits until all connections have ended, for `listen.drain_timeout` and [`LAST_WORDS`] at most.
    pub async fn ended(&self) {
        let Open { door: Door { gateway, connections }, max_connections, .. } = &self.0;
        let drain_timeout = gateway.snapshot().config.listen.drain_timeout;
        let open = || max_connections - connections.available_permits();
        tracing::info!(connections = open(), drain_timeout_seconds = drain_timeout.as_secs_f64(), "draining");
        let all = u32::try_from(*max_connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(drain_timeout, connections.acquire_many(all)).await.is_ok() {
            return;
        }
        tracing::warn!(connections = open(), "drain timeout: what is still open is ended");
        gateway.shut_down();
        if tokio::time::timeout(LAST_WORDS, connections.acquire_many(all)).await.is_err() {
            tracing::warn!(connections = open(), "what has not ended is cut");
        }
    }

    /// Ends the workers with all that is still open. Blocks the thread.
    pub fn stop(self) {
        for worker in self.0.workers {
            worker.stop();
        }
    }
}

/// Listens, before there is anything to serve with: what that takes is given up afterwards.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    listen_on(address).map_err(|source| ServeError::Listen { address, source })
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 4096;
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Of every connection that it accepts.
    socket.set_recv_buffer_size(RECEIVE_BUFFER as usize)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that was gone before it was accepted (accept(2): errors already pending on the new socket).
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it: stop that one, or change listen.address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this host has no such address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_holds_little_that_is_not_read() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let _caller = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(crate::tcp::tests::is_bounded(&accepted));
    }
}
