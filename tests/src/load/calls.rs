//! Calls over connections that stay open, as many as the proxy can carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::load::LoadError;
use crate::load::connection::{Request, Target};
use crate::load::window::{Throughput, Watch, Window};

/// Runs `connections` callers, each sending `request` again when the last was answered, and counts the answers.
///
/// # Errors
///
/// The first caller's error: every call must be answered with 200.
pub async fn run(
    target: &Target,
    request: Request,
    connections: usize,
    window: Window,
    watch: &Watch,
) -> Result<Throughput, LoadError> {
    let request = Arc::new(request);
    let counter = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..connections {
        let mut connection = target.connect().await?;
        let (request, counter) = (Arc::clone(&request), Arc::clone(&counter));
        callers.spawn(async move {
            loop {
                connection.call(request.bytes(), |_body, _arrived| ()).await?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    window.count(watch, counter, callers).await
}
