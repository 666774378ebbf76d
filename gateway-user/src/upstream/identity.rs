//! The gateway's own identity: one token a scope, fetched ahead of need, so that no call ever waits for one.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use http::HeaderValue;

use crate::config::{Identity, IdentitySource};
use crate::limits::Clock;
use crate::metrics::Metrics;

/// The library renews a token that it is asked for within its last five minutes; asked earlier it gives the old one
/// again.
const RENEW_BEFORE: Duration = Duration::from_secs(240);
/// How long to wait after a failure, doubling from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Where the token of one scope is found.
#[derive(Debug, Default)]
pub struct TokenSlot {
    current: ArcSwapOption<Bearer>,
}

#[derive(Debug)]
struct Bearer {
    header: HeaderValue,
    expires_at: u64,
}

impl TokenSlot {
    /// The `Authorization` header to send upstream; `None` while there is no token, or only one that has ended.
    #[must_use]
    pub fn header(&self, utc_seconds: u64) -> Option<HeaderValue> {
        let current = self.current.load();
        let bearer = current.as_ref()?;
        (utc_seconds < bearer.expires_at).then(|| bearer.header.clone())
    }

    /// When the token ends, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.current.load().as_ref().map(|bearer| bearer.expires_at)
    }
}

/// Makes the credential that the configuration names; none for the simulator.
///
/// # Errors
/// When the library finds the environment wanting, as a workload identity without its variables.
pub fn credential(identity: &Identity) -> Result<Option<Arc<dyn TokenCredential>>, azure_core::Error> {
    let federated = std::env::var_os("AZURE_FEDERATED_TOKEN_FILE").is_some();
    match (identity.source, federated) {
        (IdentitySource::None, _) => Ok(None),
        (IdentitySource::Cli, _) => Ok(Some(AzureCliCredential::new(None)?)),
        (IdentitySource::Workload, _) | (IdentitySource::Auto, true) => {
            let client_id = identity.client_id.clone();
            let options = WorkloadIdentityCredentialOptions { client_id, ..Default::default() };
            Ok(Some(WorkloadIdentityCredential::new(Some(options))?))
        }
        (IdentitySource::Managed, _) | (IdentitySource::Auto, false) => {
            let user_assigned_id = identity.client_id.clone().map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions { user_assigned_id, ..Default::default() };
            Ok(Some(ManagedIdentityCredential::new(Some(options))?))
        }
    }
}

/// Keeps a slot's token fresh for as long as someone holds the slot.
pub async fn keep_fresh(
    slot: Arc<TokenSlot>,
    credential: Arc<dyn TokenCredential>,
    scope: String,
    clock: Clock,
    metrics: Arc<Metrics>,
) {
    let mut retry = RETRY.0;
    while Arc::strong_count(&slot) > 1 {
        match credential.get_token(&[&scope], None).await {
            Ok(token) => {
                retry = RETRY.0;
                let expires_at = u64::try_from(token.expires_on.unix_timestamp()).unwrap_or_default();
                let Ok(mut header) = HeaderValue::try_from(format!("Bearer {}", token.token.secret())) else {
                    tracing::error!(scope, "the identity token is not fit for a header");
                    tokio::time::sleep(RETRY.1).await;
                    continue;
                };
                header.set_sensitive(true);
                slot.current.store(Some(Arc::new(Bearer { header, expires_at })));
                metrics.identity_expiry.set(i64::try_from(expires_at).unwrap_or(i64::MAX));
                let lifetime = Duration::from_secs(expires_at.saturating_sub(clock.now().utc_seconds));
                tracing::info!(scope, lifetime_seconds = lifetime.as_secs(), "identity token renewed");
                // A token shorter-lived than that is renewed at half its life.
                let renew_in = lifetime.checked_sub(RENEW_BEFORE).unwrap_or_default().max(lifetime / 2);
                tokio::time::sleep(renew_in.max(RETRY.0)).await;
            }
            Err(error) => {
                tracing::warn!(
                    scope,
                    error = %error,
                    retry_seconds = retry.as_secs_f64(),
                    "no identity token; check the identity's role and that its endpoint is reachable"
                );
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}
