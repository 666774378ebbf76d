//! What takes longer than a worker may be kept from its streams: reading long bodies, and counting prompts.
//!
//! It has a few threads of its own. They give way to the workers, and tenants take turns at them: one tenant's work is under
//! way on half of them at most, so that nobody waits for another's for longer than one piece of it takes. What waits is a
//! call's or a body's that the caller's memory is reserved for, so that there is no more of it than fits there.

mod lanes;

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::sync::oneshot;

use crate::names::TenantName;
use crate::supervise::Supervisor;
use crate::supervise::fault;
use crate::supervise::panics::{Scope, contained};
use lanes::Lanes;

/// The fewest threads: while one of them is at a long piece of work, another can be at somebody else's.
const FEWEST_THREADS: usize = 2;
/// How much of a tenant's work may wait; [`Compute::is_full`] tells of more.
const MOST_WAITING: usize = 1024;
/// How far the threads stand behind the workers, in steps of nice(2): each gets a thirtieth of a core that both want.
const NICENESS: i32 = 15;

/// Where work is handed in. Clones are of the same one.
#[derive(Debug, Clone)]
pub(crate) struct Compute(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to begin, or no more to come.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    lanes: Lanes<Job>,
    closed: bool,
}

struct Job(Box<dyn FnOnce() + Send>);

/// The threads at work.
#[derive(Debug)]
pub(crate) struct Threads {
    compute: Compute,
    running: Vec<JoinHandle<()>>,
}

/// Tells work whether anyone waits for it still. It is to end soon once nobody does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Work that was handed in, and will come to this. Dropped before, it is not done, or stopped.
#[derive(Debug)]
pub(crate) struct Running<T> {
    answer: oneshot::Receiver<T>,
    compute: Compute,
    tenant: TenantName,
    number: u64,
    stop: Stop,
}

/// The work has panicked, which was logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl Compute {
    /// A place for work, which waits until there are threads.
    pub(crate) fn new() -> Self {
        Self::of(Self::threads())
    }

    fn of(threads: usize) -> Self {
        let state = State { lanes: Lanes::new((threads / 2).max(1)), closed: false };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    fn threads() -> usize {
        std::thread::available_parallelism().map_or(FEWEST_THREADS, NonZeroUsize::get).max(FEWEST_THREADS)
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn start(&self, supervisor: &Supervisor) -> io::Result<Threads> {
        let running = (0..Self::threads())
            .map(|number| {
                let compute = self.clone();
                supervisor.thread(format!("compute-{number}"), move || compute.work())
            })
            .collect::<io::Result<_>>()?;
        Ok(Threads { compute: self.clone(), running })
    }

    /// Has something done for a tenant when it is its turn.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        tenant: &TenantName,
        work: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Running<T> {
        let (sender, answer) = oneshot::channel();
        let stop = Stop::default();
        let told = stop.clone();
        let number = self.push(tenant, move || {
            // Whoever waited may be gone.
            drop(sender.send(work(&told)));
        });
        Running { answer, compute: self.clone(), tenant: tenant.clone(), number, stop }
    }

    /// Has something done for a tenant that nobody waits for. It is done in any case, before the threads end too.
    pub(crate) fn see_to(&self, tenant: &TenantName, work: impl FnOnce() + Send + 'static) {
        self.push(tenant, work);
    }

    /// Whether so much of a tenant's work waits that no more should be taken on.
    pub(crate) fn is_full(&self, tenant: &TenantName) -> bool {
        self.0.state.lock().lanes.waiting(tenant) >= MOST_WAITING
    }

    fn push(&self, tenant: &TenantName, work: impl FnOnce() + Send + 'static) -> u64 {
        let number = self.0.state.lock().lanes.push(tenant, Job(Box::new(work)));
        self.0.changed.notify_one();
        number
    }

    /// Does what is handed in, until there is no more to come.
    fn work(&self) {
        if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
            tracing::debug!(error = %error, "a thread that should give way to the workers does not");
        }
        let mut state = self.0.state.lock();
        loop {
            if let Some((tenant, Job(work))) = state.lanes.next() {
                MutexGuard::unlocked(&mut state, || contained(Scope::Call, work));
                state.lanes.done(&tenant);
                fault::point("compute");
            } else if state.closed {
                return;
            } else {
                self.0.changed.wait(&mut state);
            }
        }
    }
}

impl Threads {
    /// Ends the threads after all that has been handed in. Blocks the thread that it is called on.
    pub(crate) fn stop(self) {
        self.compute.0.state.lock().closed = true;
        self.compute.0.changed.notify_all();
        for thread in self.running {
            if thread.join().is_err() {
                tracing::error!("a thread for computing was not seen to its end");
            }
        }
    }
}

impl Stop {
    /// From now on nobody waits.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the work any more.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map_err(|_dropped| Unanswered)
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.stop.set();
        let waiting = self.compute.0.state.lock().lanes.remove(&self.tenant, self.number);
        // What it holds may need the lock to be given back.
        drop(waiting);
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn name(text: &str) -> TenantName {
        TenantName::new(text).unwrap()
    }

    #[tokio::test]
    async fn work_comes_to_its_answer_and_a_panic_to_none() {
        let (compute, supervisor) = (Compute::new(), Supervisor::default());
        let threads = compute.start(&supervisor).unwrap();
        assert_eq!(compute.run(&name("a"), |_| 1).await, Ok(1));
        assert_eq!(compute.run(&name("a"), |_| -> u32 { panic!("odd") }).await, Err(Unanswered));
        assert_eq!(compute.run(&name("a"), |_| 2).await, Ok(2), "the thread goes on");
        supervisor.stopping();
        threads.stop();
        assert_eq!(supervisor.failure(), None);
    }

    #[tokio::test]
    async fn one_tenants_work_leaves_a_thread_to_others() {
        let (compute, supervisor) = (Compute::of(2), Supervisor::default());
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let greedy: Vec<_> = (0..10)
            .map(|_| {
                let held = Arc::clone(&held);
                compute.run(&name("greedy"), move |_| held.lock().recv())
            })
            .collect();
        let threads = compute.start(&supervisor).unwrap();
        for number in 0..10 {
            assert_eq!(compute.run(&name("honest"), move |_| number).await, Ok(number));
        }
        drop(release);
        for running in greedy {
            assert!(running.await.is_ok());
        }
        supervisor.stopping();
        threads.stop();
    }

    #[test]
    fn work_of_who_is_gone_is_not_done_or_told_to_stop() {
        let compute = Compute::of(1);
        let done = Arc::new(AtomicBool::new(false));
        let first = compute.run(&name("a"), Stop::clone);
        let noted = Arc::clone(&done);
        drop(compute.run(&name("a"), move |_| noted.store(true, Ordering::Relaxed)));
        assert_eq!(Arc::strong_count(&done), 1, "what it held is given back at once");
        let (tenant, Job(work)) = compute.0.state.lock().lanes.next().unwrap();
        let stop = first.stop.clone();
        assert!(!stop.is_set());
        drop(first);
        assert!(stop.is_set());
        work();
        compute.0.state.lock().lanes.done(&tenant);
        assert!(compute.0.state.lock().lanes.next().is_none());
    }

    #[test]
    fn what_nobody_waits_for_is_done_before_the_threads_end() {
        let (compute, supervisor) = (Compute::new(), Supervisor::default());
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            compute.see_to(&name(&format!("tenant-{}", number % 7)), move || sender.send(number).unwrap());
        }
        let threads = compute.start(&supervisor).unwrap();
        supervisor.stopping();
        threads.stop();
        drop(sender);
        assert_eq!(receiver.iter().count(), 100);
    }

    #[test]
    fn a_tenant_with_much_work_is_told_so() {
        let compute = Compute::of(2);
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| compute.run(&name("a"), |_| ())).collect();
        assert!(compute.is_full(&name("a")) && !compute.is_full(&name("b")));
        drop(waiting);
        assert!(!compute.is_full(&name("a")));
    }
}
