//! Waiting for upstream, for as long as it may take and the tenant may call.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::call::Permission;
use crate::relay::LOOK_AFTER;
use crate::reply::Refusal;

/// Waits for upstream on behalf of a call.
///
/// # Errors
/// When nothing comes within `limit`, or the call may not go on: that is noticed within [`LOOK_AFTER`].
pub(super) async fn for_upstream<T>(
    permission: &Permission,
    limit: Duration,
    upstream: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut upstream = pin!(upstream);
    let mut now = Instant::now();
    let deadline = now + limit;
    loop {
        if let Some(refusal) = permission.withdrawn() {
            return Err(refusal);
        }
        if let Ok(output) = timeout_at(deadline.min(now + LOOK_AFTER), upstream.as_mut()).await {
            return Ok(output);
        }
        now = Instant::now();
        if now >= deadline {
            return Err(Refusal::UpstreamTimeout(limit));
        }
    }
}
