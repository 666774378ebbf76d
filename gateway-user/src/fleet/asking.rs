//! A request for a larger lease that a call waits for.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Ends when the store has answered or the time for it is over; whether it helped, the account knows.
///
/// Boxed, because it is rare: the calls that need none carry nothing of it.
pub(crate) struct Asking(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Asking {
    pub(super) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for Asking {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}
