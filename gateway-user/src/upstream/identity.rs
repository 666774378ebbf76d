//! The gateway's own identity: one token a scope, fetched ahead of need, so that no call ever waits for one.

mod attempt;
mod reason;
mod source;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use prometheus_client::metrics::gauge::Gauge;

use crate::limits::Clock;
use crate::metrics::{Metrics, ScopeLabel};

pub use reason::Cause;
pub use source::{Credential, IdentityError, Source};

/// The library renews a token that it is asked for within its last five minutes; asked earlier it gives the old one
/// again.
const RENEW_BEFORE: Duration = Duration::from_secs(240);
/// How long to wait after a failure, doubling from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long one attempt may take.
const PATIENCE: Patience = Patience { slow: Duration::from_secs(10), given_up: Duration::from_secs(60) };
/// Between two warnings of the same failure.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Where the token of one scope is found.
#[derive(Debug)]
pub struct TokenSlot {
    scope: String,
    source: Source,
    current: ArcSwapOption<Bearer>,
    /// Why the last attempt to get a token failed, or that there was none yet.
    problem: ArcSwapOption<String>,
    expiry: Gauge,
    up: Gauge,
}

#[derive(Debug)]
struct Bearer {
    header: HeaderValue,
    expires_at: u64,
}

impl TokenSlot {
    /// A place without a token yet, whose state is shown in the metrics of its scope.
    #[must_use]
    pub fn new(scope: &str, source: Source, metrics: &Metrics) -> Self {
        let label = ScopeLabel { scope: scope.to_owned() };
        Self {
            scope: scope.to_owned(),
            source,
            current: ArcSwapOption::empty(),
            problem: ArcSwapOption::from_pointee(NOT_YET.to_owned()),
            expiry: metrics.identity_expiry.get_or_create_owned(&label),
            up: metrics.identity_up.get_or_create_owned(&label),
        }
    }

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

    /// What its tokens are asked for.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Where its tokens come from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Why the last attempt to get a token failed; `None` where it did not. A token that was got before may still hold.
    #[must_use]
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    fn fill(&self, header: HeaderValue, expires_at: u64) {
        self.current.store(Some(Arc::new(Bearer { header, expires_at })));
        self.problem.store(None);
        self.expiry.set(i64::try_from(expires_at).unwrap_or(i64::MAX));
        self.up.set(1);
    }

    fn fail(&self, reason: &str) {
        self.problem.store(Some(Arc::new(reason.to_owned())));
        self.up.set(0);
    }
}

/// Keeps a slot's token fresh for as long as someone else holds the slot.
pub async fn keep_fresh(slot: Arc<TokenSlot>, credential: Arc<Credential>, clock: Clock) {
    let mut retry = RETRY.0;
    let mut outage = Outage::default();
    while Arc::strong_count(&slot) > 1 {
        if renew(&slot, &credential, &mut outage, PATIENCE).await {
            retry = RETRY.0;
            let expires_at = slot.expires_at().unwrap_or_default();
            let lifetime = Duration::from_secs(expires_at.saturating_sub(clock.now().utc_seconds));
            tracing::info!(
                scope = slot.scope,
                lifetime_seconds = lifetime.as_secs(),
                "identity token renewed"
            );
            // A token shorter-lived than that is renewed at half its life.
            let renew_in = lifetime.checked_sub(RENEW_BEFORE).unwrap_or_default().max(lifetime / 2);
            tokio::time::sleep(renew_in.max(RETRY.0)).await;
        } else {
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
    }
}

/// Asks for a token once; whether there is one. Tells of a failure, and of its end.
async fn renew(slot: &TokenSlot, credential: &Credential, outage: &mut Outage, patience: Patience) -> bool {
    match ask(slot, credential, outage, patience).await {
        Ok((header, expires_at)) => {
            slot.fill(header, expires_at);
            if outage.end() {
                tracing::info!(scope = slot.scope, "identity tokens can be had again");
            }
            true
        }
        Err(cause) => {
            note(slot, credential, outage, &cause);
            false
        }
    }
}

/// Asks for a token, and tells when it is slow to come.
async fn ask(
    slot: &TokenSlot,
    credential: &Credential,
    outage: &mut Outage,
    Patience { slow, given_up }: Patience,
) -> Result<(HeaderValue, u64), Cause> {
    let mut asking = std::pin::pin!(credential.token(&slot.scope));
    let token = match tokio::time::timeout(slow, &mut asking).await {
        Ok(answer) => answer?,
        Err(_elapsed) => {
            note(slot, credential, outage, &Cause::Silent(slow));
            tokio::time::timeout(given_up.saturating_sub(slow), asking)
                .await
                .map_err(|_elapsed| Cause::Silent(given_up))??
        }
    };
    let expires_at = u64::try_from(token.expires_on.unix_timestamp()).unwrap_or_default();
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.token.secret()))
        .map_err(|_characters| Cause::Library("the token that came is not fit for a header".to_owned()))?;
    header.set_sensitive(true);
    Ok((header, expires_at))
}

/// Tells that there is no new token, and why.
fn note(slot: &TokenSlot, credential: &Credential, outage: &mut Outage, cause: &Cause) {
    let reason = credential.explain(cause);
    slot.fail(&reason);
    if outage.is_worth_a_line(&reason, Instant::now()) {
        tracing::warn!(scope = slot.scope, source = slot.source.as_str(), reason, "no identity token");
    }
}

/// How long a token is waited for, from when it is asked for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until it is told that it has not come.
    slow: Duration,
    /// Until the attempt ends.
    given_up: Duration,
}

/// A time in which no token can be had, and what was said of it.
#[derive(Debug, Default)]
struct Outage {
    said: Option<(String, Instant)>,
}

impl Outage {
    /// Whether to write a line: for a reason that was not said last, and for each again once a minute.
    fn is_worth_a_line(&mut self, reason: &str, now: Instant) -> bool {
        if let Some((last, at)) = &self.said
            && last == reason
            && now.saturating_duration_since(*at) < WARN_EVERY
        {
            return false;
        }
        self.said = Some((reason.to_owned(), now));
        true
    }

    /// Ends it; whether there was one.
    fn end(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// What is said before the first attempt has an end.
const NOT_YET: &str = "the first one has been asked for and has not come yet";

#[cfg(test)]
mod tests;
