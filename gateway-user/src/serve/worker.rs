//! One thread that serves: a single-threaded runtime, its own pool of backend connections, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::connection::{self, Accepted};
use super::door::Entered;
use super::linger::Lane;
use super::open::OpenConnection;
use super::{ServeError, Shared};
use crate::call::{Reporter, Reports};
use crate::session::WorkerState;
use crate::supervise::fault;
use crate::supervise::panics::{Scope, Scoped};

/// Connections that may wait for a worker's attention.
const QUEUE: usize = 1024;
/// Tasks that run between two looks at the sockets: tokio's default is 61. A task that reads a long body takes much longer than
/// most, and a small call that arrives waits for all 16.
const TASKS_BETWEEN_LOOKS: u32 = 16;
/// How often connections that have been idle for too long are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often responses are looked for that their callers do not take.
const LOOK_AFTER: Duration = Duration::from_millis(400);

/// A worker, as the accepting side sees it.
#[derive(Debug)]
pub(super) struct Worker {
    queue: mpsc::Sender<Handover>,
    open: Arc<AtomicUsize>,
    connections: Gauge,
    thread: std::thread::JoinHandle<()>,
}

struct Handover {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    open: OpenConnection,
}

impl Worker {
    pub(super) fn start(
        number: usize,
        shared: &Shared,
        draining: &watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        let (reports, reporter) = Reports::new();
        let state = Arc::new(WorkerState::new(reports)?);
        let open = Arc::<AtomicUsize>::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .event_interval(TASKS_BETWEEN_LOOKS)
            .enable_all()
            .build()
            .map_err(ServeError::Worker)?;
        let (queue, receiver) = mpsc::channel(QUEUE);
        let name = format!("worker-{number}");
        let serving = serve(Serving {
            name: name.clone(),
            queue: receiver,
            shared: shared.clone(),
            state,
            reporter,
            draining: draining.clone(),
        });
        let run = move || {
            // All else that the thread polls are connections.
            let _connections = Scope::Connection.enter();
            runtime.block_on(Scoped::new(Scope::Background, Box::pin(serving)));
        };
        let thread = shared.supervisor.thread(name, run).map_err(ServeError::Worker)?;
        Ok(Self { queue, open, connections: shared.gateway.metrics.connections.clone(), thread })
    }

    /// The one with the fewest connections; none where all have ended.
    pub(super) fn least_busy(workers: &[Self]) -> Option<&Self> {
        // One that has ended has none, and is not to be taken for the least busy.
        let alive = workers.iter().filter(|worker| !worker.queue.is_closed());
        alive.min_by_key(|worker| worker.open.load(Ordering::Relaxed))
    }

    /// Hands a connection over. Waits while the worker's queue is full; one that has ended closes it.
    pub(super) async fn take(&self, stream: TcpStream, peer: SocketAddr, entered: Entered) {
        let open = self.opened(entered);
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "an accepted connection cannot be handed over");
                return;
            }
        };
        if self.queue.send(Handover { stream, peer, open }).await.is_err() {
            tracing::warn!(peer = %peer, "a connection is closed, because its worker has ended");
        }
    }

    fn opened(&self, entered: Entered) -> OpenConnection {
        OpenConnection::new(Arc::clone(&self.open), self.connections.clone(), entered)
    }

    /// Ends the worker with all that it still has open.
    pub(super) fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("a worker was not seen to its end");
        }
    }
}

/// A worker, as its own thread sees it.
struct Serving {
    name: String,
    queue: mpsc::Receiver<Handover>,
    shared: Shared,
    state: Arc<WorkerState>,
    reporter: Reporter,
    draining: watch::Receiver<bool>,
}

#[expect(clippy::disallowed_methods, reason = "a connection ends by itself, and alone")]
async fn serve(serving: Serving) {
    let Serving { name, mut queue, shared, state, reporter, draining } = serving;
    let Shared { gateway, tls, supervisor } = shared;
    drop(supervisor.task(format!("{name} reporter"), reporter.run()));
    let lane = Arc::<Lane>::default();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut look_after = tokio::time::interval(LOOK_AFTER);
    loop {
        tokio::select! {
            handover = queue.recv() => {
                let Some(Handover { stream, peer, open }) = handover else { return };
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
                    lane: Arc::clone(&lane),
                    tls: tls.load_full(),
                    draining: draining.clone(),
                    open,
                }));
            }
            _ = sweep.tick() => state.pool.sweep(Instant::now()),
            _ = look_after.tick() => {
                fault::point(&name);
                state.relays.look_after(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::session::Activity;

    #[expect(clippy::disallowed_methods, reason = "a thread to have the handle of")]
    fn worker(queue: mpsc::Sender<Handover>, open: usize) -> Worker {
        let thread = std::thread::spawn(|| {});
        Worker { queue, open: Arc::new(AtomicUsize::new(open)), connections: Gauge::default(), thread }
    }

    #[test]
    fn a_worker_that_has_ended_is_not_the_least_busy() {
        let (alive, _receiver) = mpsc::channel(1);
        let (ended, receiver) = mpsc::channel(1);
        let workers = [worker(ended, 0), worker(alive.clone(), 3), worker(alive, 2)];
        let busy = |worker: Option<&Worker>| worker.map(|worker| worker.open.load(Ordering::Relaxed));
        assert_eq!(busy(Worker::least_busy(&workers)), Some(0));
        drop(receiver);
        assert_eq!(busy(Worker::least_busy(&workers)), Some(2));
        assert_eq!(busy(Worker::least_busy(&workers[..1])), None);
    }

    #[tokio::test]
    async fn a_connection_that_a_worker_cannot_take_does_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let worker = worker(mpsc::channel(1).0, 0);
        let entered = Entered { activity: Arc::new(Activity::new()), seat: None, _permit: permit };
        worker.take(stream, peer, entered).await;
        assert_eq!(worker.open.load(Ordering::Relaxed), 0);
        assert_eq!(worker.connections.get(), 0);
        assert_eq!(permits.available_permits(), 1);
    }
}
