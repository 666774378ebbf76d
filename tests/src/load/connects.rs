//! New connections, each with a full handshake and one small call, as many as the proxy can carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::load::LoadError;
use crate::load::connection::{Request, Target};
use crate::load::window::{Throughput, Watch, Window};

/// Runs `callers` callers, each opening its next connection when the last was closed, and counts the connections.
///
/// # Errors
///
/// The first caller's error.
pub async fn run(
    target: &Target,
    key: &str,
    callers: usize,
    window: Window,
    watch: &Watch,
) -> Result<Throughput, LoadError> {
    let request = Arc::new(Request::small(target.address(), key));
    let counter = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (target, request, counter) = (target.clone(), Arc::clone(&request), Arc::clone(&counter));
        running.spawn(async move {
            loop {
                let mut connection = target.connect().await?;
                connection.call(request.bytes(), |_body, _arrived| ()).await?;
                connection.close().await?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    window.count(watch, counter, running).await
}
