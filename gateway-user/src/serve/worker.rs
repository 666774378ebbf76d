//! One thread that serves: a single-threaded runtime, its own pool of backend connections, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::connection::{self, Accepted};
use super::{ServeError, Tls};
use crate::call::{Reporter, Reports};
use crate::gateway::Gateway;
use crate::session::WorkerState;

/// Connections that may wait for a worker's attention.
const QUEUE: usize = 1024;
/// How often connections that have been idle for too long are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often responses are looked for that their callers do not take.
const LOOK_AFTER: Duration = Duration::from_millis(400);

/// A worker, as the accepting side sees it.
#[derive(Debug)]
pub(super) struct Worker {
    queue: mpsc::Sender<Handover>,
    open: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

struct Handover {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

/// Counts a connection among a worker's open ones until it is dropped.
pub(super) struct OpenConnection {
    among: Arc<AtomicUsize>,
    gateway: Arc<Gateway>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.among.fetch_sub(1, Ordering::Relaxed);
        self.gateway.metrics.connections.dec();
    }
}

impl Worker {
    pub(super) fn start(
        number: usize,
        gateway: &Arc<Gateway>,
        tls: &Tls,
        draining: &watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        let (reports, reporter) = Reports::new();
        let state = Arc::new(WorkerState::new(reports)?);
        let open = Arc::<AtomicUsize>::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Worker)?;
        let (queue, receiver) = mpsc::channel(QUEUE);
        let serving = serve(Serving {
            queue: receiver,
            open: Arc::clone(&open),
            gateway: Arc::clone(gateway),
            state,
            reporter,
            tls: Arc::clone(tls),
            draining: draining.clone(),
        });
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(serving))
            .map_err(ServeError::Worker)?;
        Ok(Self { queue, open, thread })
    }

    /// Connections that it has.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands a connection over. Waits while the worker's queue is full; a worker that is gone drops it.
    pub(super) async fn take(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "an accepted connection cannot be handed over");
                return;
            }
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(Handover { stream, peer, permit }).await.is_err() {
            tracing::error!("a worker has ended");
        }
    }

    /// Ends the worker with all that it still has open.
    pub(super) fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("a worker ended in a panic");
        }
    }
}

/// A worker, as its own thread sees it.
struct Serving {
    queue: mpsc::Receiver<Handover>,
    open: Arc<AtomicUsize>,
    gateway: Arc<Gateway>,
    state: Arc<WorkerState>,
    reporter: Reporter,
    tls: Tls,
    draining: watch::Receiver<bool>,
}

async fn serve(serving: Serving) {
    let Serving { mut queue, open, gateway, state, reporter, tls, draining } = serving;
    tokio::spawn(reporter.run());
    let mut sweep = tokio::time::interval(SWEEP);
    let mut look_after = tokio::time::interval(LOOK_AFTER);
    loop {
        tokio::select! {
            handover = queue.recv() => {
                let Some(Handover { stream, peer, permit }) = handover else { return };
                let open = OpenConnection { among: Arc::clone(&open), gateway: Arc::clone(&gateway), _permit: permit };
                let stream = match TcpStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(error = %error, "an accepted connection cannot be served");
                        continue;
                    }
                };
                tokio::spawn(connection::serve(Accepted {
                    stream,
                    peer,
                    gateway: Arc::clone(&gateway),
                    worker: Arc::clone(&state),
                    tls: tls.load_full(),
                    draining: draining.clone(),
                    open,
                }));
            }
            _ = sweep.tick() => state.pool.sweep(Instant::now()),
            _ = look_after.tick() => state.relays.look_after(Instant::now()),
        }
    }
}
