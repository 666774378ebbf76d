//! What becomes of a panic: it is logged and counted where it happens, and ends no more than it must.
//!
//! tokio catches a panic in a task and hyper runs a connection, and each call on an HTTP/2 connection, as a task. What is
//! polled or called by a worker itself has to be [`contained`]. The hook that counts runs once a panic, whoever catches it
//! later; it learns from a thread-local what the thread was at.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What a thread is at, and what a panic in it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// One call; over HTTP/1.1 its connection breaks off with it.
    Call,
    /// One connection.
    Connection,
    /// A standing part, and with it the process. The store takes panics of its database as damage, and goes on.
    Background,
    /// Something else: an answer on the admin port, the upkeep of the shedding.
    Other,
}

impl Scope {
    /// All of them, so that each has its series from the start.
    pub(crate) const ALL: [Self; 4] = [Self::Call, Self::Connection, Self::Background, Self::Other];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Connection => "connection",
            Self::Background => "background",
            Self::Other => "other",
        }
    }

    /// This thread is at it until the guard is dropped.
    pub(crate) fn enter(self) -> Entered {
        Entered { before: CURRENT.replace(self) }
    }
}

/// A thread's scope; what it was before comes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Scope,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// A future whose panics count as of its scope.
#[derive(Debug)]
pub(crate) struct Scoped<F> {
    scope: Scope,
    future: F,
}

impl<F> Scoped<F> {
    pub(crate) const fn new(scope: Scope, future: F) -> Self {
        Self { scope, future }
    }
}

impl<F: Future + Unpin> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.scope.enter();
        Pin::new(&mut self.future).poll(cx)
    }
}

/// [`Scoped`] for a future that cannot be moved. It takes twice the future's room: not for what there are many of.
pub(super) async fn within<F: Future>(scope: Scope, future: F) -> F::Output {
    Scoped::new(scope, pin!(future)).await
}

/// Runs something whose panic must not end the thread's own work; `None` where it panicked.
pub(crate) fn contained<T>(scope: Scope, run: impl FnOnce() -> T) -> Option<T> {
    let _entered = scope.enter();
    // The hook has logged and counted it.
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// From now on panics are logged and counted, in place of the standard library's lines on standard error. A backtrace is
/// in the log where `RUST_BACKTRACE` asks for it.
pub(crate) fn observe(count: impl Fn(Scope) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        let scope = CURRENT.get();
        count(scope);
        log(scope, panic);
    }));
}

fn log(scope: Scope, panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    tracing::error!(
        "where" = scope.as_str(),
        thread = thread.name().unwrap_or_default(),
        location = panic.location().map(tracing::field::display),
        problem = message(panic.payload()),
        backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace)),
        "panicked"
    );
}

/// What a panic says of itself.
pub(super) fn message(payload: &(dyn Any + Send)) -> Box<str> {
    // `panic!` has no other payloads than these two.
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .into()
}

thread_local! {
    static CURRENT: Cell<Scope> = const { Cell::new(Scope::Other) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_ends_what_it_is_in_alone() {
        assert_eq!(contained(Scope::Call, || 1), Some(1));
        assert_eq!(contained(Scope::Call, || -> u32 { panic!("odd") }), None);
        assert_eq!(CURRENT.get(), Scope::Other, "what the thread was at before comes back");
    }

    #[tokio::test]
    async fn a_scope_lasts_while_its_future_is_polled() {
        let scopes = within(Scope::Connection, async {
            let outer = CURRENT.get();
            let inner = Scoped::new(Scope::Call, Box::pin(async { CURRENT.get() })).await;
            tokio::task::yield_now().await;
            (outer, inner, CURRENT.get())
        });
        let scopes = scopes.await;
        assert_eq!(scopes, (Scope::Connection, Scope::Call, Scope::Connection));
        assert_eq!(CURRENT.get(), Scope::Other);
    }
}
