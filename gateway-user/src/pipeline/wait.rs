//! Waiting for upstream, for as long as it may take and the tenant may call.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::gateway::Tenant;
use crate::relay::LOOK_AFTER;
use crate::reply::Refusal;
use crate::tenant::KeySlot;

/// Waits for upstream on behalf of a call that was made with a tenant's key.
///
/// # Errors
/// When nothing comes within `limit`, or the key has been revoked: that is noticed within [`LOOK_AFTER`].
pub(super) async fn for_upstream<T>(
    tenant: &Tenant,
    slot: KeySlot,
    limit: Duration,
    upstream: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut upstream = pin!(upstream);
    let mut now = Instant::now();
    let deadline = now + limit;
    loop {
        if tenant.is_revoked(slot) {
            return Err(Refusal::InvalidKey);
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
