//! Owns the standing tasks and threads of the process: the parts that run from its start to its end.
//!
//! A gateway whose reloader, store or worker is gone looks well from outside and is not. So each standing part has a name,
//! and the first to end wrongly, by a panic or by returning before the process stops, is a [`Failure`] that ends the
//! process: `serve` waits for it. What ends by itself (a call, a connection, a trial of a backend) is none of these; a
//! panic there ends it alone, and [`panics`] counts it.

pub(crate) mod fault;
pub(crate) mod panics;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle as ThreadHandle;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use panics::Scope;

/// Starts standing parts, and tells of the first that fails. Clones are of the same supervisor.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The parts have been told to return, or are about to be.
    stopping: AtomicBool,
    failure: watch::Sender<Option<Failure>>,
}

/// A standing part that has ended wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The part's name.
    pub part: Box<str>,
    /// How it ended.
    pub why: Why,
}

/// How a standing part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// By a panic with this message.
    Panicked(Box<str>),
    /// It returned, and nobody had told it to.
    Returned,
}

/// A standing task. It goes on when this is dropped.
#[derive(Debug)]
pub struct Task {
    running: AbortHandle,
    /// Ends after the task.
    watching: JoinHandle<()>,
}

/// Whether a part may return before the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returning {
    /// That is a failure.
    Wrong,
    /// Its work is done then.
    Right,
}

impl Supervisor {
    /// Starts a task that runs until the process stops. Must be called on the runtime that is to run it; with the runtime
    /// it ends without a failure.
    pub fn task(&self, name: impl Into<Box<str>>, future: impl Future<Output = ()> + Send + 'static) -> Task {
        self.spawn(name.into(), Returning::Wrong, future)
    }

    /// Starts a task like [`Supervisor::task`] that may also return, once nobody needs it any more.
    pub fn task_until_done(
        &self,
        name: impl Into<Box<str>>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Task {
        self.spawn(name.into(), Returning::Right, future)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the supervisor")]
    fn spawn(
        &self,
        name: Box<str>,
        returning: Returning,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Task {
        let running = tokio::spawn(panics::within(Scope::Background, future));
        let abort = running.abort_handle();
        let supervisor = self.clone();
        let watching = tokio::spawn(async move {
            match running.await.map_err(JoinError::try_into_panic) {
                Ok(()) => supervisor.returned(name, returning),
                Err(Ok(payload)) => supervisor.failed_by(name, Why::Panicked(panics::message(&*payload))),
                // Aborted by its owner, or together with its runtime.
                Err(Err(_cancelled)) => {}
            }
        });
        Task { running: abort, watching }
    }

    /// Starts a thread that runs until the process stops. Its handle is for whoever tells it to return.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread(
        &self,
        name: impl Into<Box<str>>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<ThreadHandle<()>> {
        self.start(name.into(), Returning::Wrong, run)
    }

    /// Starts a thread like [`Supervisor::thread`] that may also return, as when another part that it works for has failed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread_until_done(
        &self,
        name: impl Into<Box<str>>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<ThreadHandle<()>> {
        self.start(name.into(), Returning::Right, run)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the supervisor")]
    fn start(
        &self,
        name: Box<str>,
        returning: Returning,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<ThreadHandle<()>> {
        let supervisor = self.clone();
        std::thread::Builder::new().name(name.to_string()).spawn(move || {
            let _background = Scope::Background.enter();
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(()) => supervisor.returned(name, returning),
                Err(payload) => supervisor.failed_by(name, Why::Panicked(panics::message(&*payload))),
            }
        })
    }

    /// From now on parts may return: the process stops. A panic is a failure still.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// The first failure so far.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.0.failure.borrow().clone()
    }

    /// Waits for the first failure.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.0.failure.subscribe();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            if failure.changed().await.is_err() {
                // This supervisor has the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn returned(&self, part: Box<str>, returning: Returning) {
        if returning == Returning::Wrong && !self.0.stopping.load(Ordering::Acquire) {
            self.failed_by(part, Why::Returned);
        }
    }

    fn failed_by(&self, part: Box<str>, why: Why) {
        let failure = Failure { part, why };
        tracing::error!(part = %failure.part, problem = %failure.why, "a standing part of the gateway has failed");
        self.0.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }
}

impl Task {
    /// Cancels the task at its next await, and waits until it is gone.
    pub async fn cancel(self) {
        self.running.abort();
        if let Err(error) = self.watching.await {
            tracing::debug!(error = %error, "a task was not seen to its end");
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
            Self::Returned => f.write_str("it ended before the gateway was told to stop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(part: &str, why: Why) -> Failure {
        Failure { part: part.into(), why }
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_a_failure() {
        let supervisor = Supervisor::default();
        supervisor.task("reloader", async { panic!("no {}", "files") });
        assert_eq!(supervisor.failed().await, failure("reloader", Why::Panicked("no files".into())));
        let supervisor = Supervisor::default();
        supervisor.task("admin", async {});
        assert_eq!(supervisor.failed().await, failure("admin", Why::Returned));
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_that_is_told() {
        let supervisor = Supervisor::default();
        supervisor.thread("first", || panic!("one")).unwrap().join().unwrap();
        supervisor.thread("second", || {}).unwrap().join().unwrap();
        assert_eq!(supervisor.failed().await, failure("first", Why::Panicked("one".into())));
        assert_eq!(supervisor.failure(), Some(failure("first", Why::Panicked("one".into()))));
    }

    #[tokio::test]
    async fn a_task_that_is_cancelled_or_done_is_none() {
        let supervisor = Supervisor::default();
        let task = supervisor.task("fleet", std::future::pending());
        task.cancel().await;
        let done = supervisor.task_until_done("identity", async {});
        done.watching.await.unwrap();
        assert_eq!(supervisor.failure(), None);
        supervisor.task_until_done("identity", async { panic!("odd") });
        assert_eq!(supervisor.failed().await, failure("identity", Why::Panicked("odd".into())));
    }

    #[test]
    fn a_task_that_ends_with_its_runtime_is_none() {
        let supervisor = Supervisor::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let inner = supervisor.clone();
        runtime.block_on(async move { drop(inner.task("reporter", std::future::pending())) });
        drop(runtime);
        assert_eq!(supervisor.failure(), None);
    }

    #[test]
    fn while_the_process_stops_parts_return_but_do_not_panic() {
        let supervisor = Supervisor::default();
        supervisor.stopping();
        supervisor.thread("worker-0", || {}).unwrap().join().unwrap();
        assert_eq!(supervisor.failure(), None);
        supervisor.thread("store", || panic!("full")).unwrap().join().unwrap();
        assert_eq!(supervisor.failure(), Some(failure("store", Why::Panicked("full".into()))));
    }
}
