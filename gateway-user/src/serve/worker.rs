//! One thread that serves: a single-threaded runtime, its own pool of backend connections, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::connection::{self, Accepted};
use super::{ServeError, Tls};
use crate::gateway::Gateway;
use crate::relay::Relays;
use crate::request_id::RequestIds;
use crate::upstream::pool::Pool;

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
    state: Arc<WorkerState>,
    thread: std::thread::JoinHandle<()>,
}

/// What a worker's connections share.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) pool: Arc<Pool>,
    pub(crate) relays: Relays,
    pub(crate) request_ids: RequestIds,
    open: AtomicUsize,
}

struct Handover {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

/// Counts a connection among a worker's open ones until it is dropped.
pub(super) struct OpenConnection {
    state: Arc<WorkerState>,
    gateway: Arc<Gateway>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::Relaxed);
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
        let state = Arc::new(WorkerState {
            pool: Arc::default(),
            relays: Relays::default(),
            request_ids: RequestIds::new()?,
            open: AtomicUsize::new(0),
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Worker)?;
        let (queue, receiver) = mpsc::channel(QUEUE);
        let serving =
            serve(receiver, Arc::clone(gateway), Arc::clone(&state), Arc::clone(tls), draining.clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(serving))
            .map_err(ServeError::Worker)?;
        Ok(Self { queue, state, thread })
    }

    /// Connections that it has.
    pub(super) fn open(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
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
        self.state.open.fetch_add(1, Ordering::Relaxed);
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

async fn serve(
    mut queue: mpsc::Receiver<Handover>,
    gateway: Arc<Gateway>,
    state: Arc<WorkerState>,
    tls: Tls,
    draining: watch::Receiver<bool>,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    let mut look_after = tokio::time::interval(LOOK_AFTER);
    loop {
        tokio::select! {
            handover = queue.recv() => {
                let Some(Handover { stream, peer, permit }) = handover else { return };
                let open = OpenConnection { state: Arc::clone(&state), gateway: Arc::clone(&gateway), _permit: permit };
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
