//! Refusals: the one place that turns a reason into a status, a body, headers and a metric's label.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::config::ErrorFormat;
use crate::limits::{Now, Refused};
use crate::names::{DeploymentName, TenantName};
use crate::units::Tokens;

/// `retry-after-ms`: what OpenAI's SDKs read before `retry-after`.
pub const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// `x-quota-reason`: the reason in a header, so that no body has to be parsed for it.
pub const QUOTA_REASON: HeaderName = HeaderName::from_static("x-quota-reason");

/// Why a request is not answered by a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its source is under penalty: it called too fast, or went on after having been refused.
    SourceLimit {
        /// Until the penalty ends.
        wait: Duration,
    },
    /// No key in any of the places.
    MissingTenant,
    /// A key of nobody, or of a tenant that may not call.
    InvalidKey,
    /// No such method and path.
    UnknownRoute,
    /// A body or query that cannot be acted on, and what is wrong with it.
    InvalidRequest(String),
    /// A body beyond the limit, in bytes.
    BodyTooLarge(usize),
    /// No memory is left for its body, in the process or in its tenant's part.
    Overloaded,
    /// The body did not arrive whole within the time for it.
    BodyTimeout,
    /// A deployment that is not declared.
    UnknownDeployment,
    /// A declared deployment that the tenant's tier does not include.
    DeploymentNotAllowed(DeploymentName),
    /// One of the tenant's limits.
    Limited(Refused),
    /// Every backend of the deployment is out; the first of them may be back after this.
    NoBackend {
        /// Until the next trial.
        wait: Duration,
    },
    /// Upstream could not be reached, or broke off before its response.
    UpstreamError,
    /// Upstream sent no response in time.
    UpstreamTimeout(Duration),
    /// No identity token to forward with.
    IdentityUnavailable,
    /// The gateway is about to stop.
    ShuttingDown,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::MissingTenant | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::UnknownRoute | Self::UnknownDeployment => StatusCode::NOT_FOUND,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) | Self::Limited(Refused::Prompt { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::DeploymentNotAllowed(_)
            | Self::Limited(Refused::TokenQuota { .. } | Refused::SpendQuota { .. }) => StatusCode::FORBIDDEN,
            Self::SourceLimit { .. }
            | Self::Limited(Refused::Calls { .. } | Refused::Concurrency { .. } | Refused::Tokens { .. }) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Overloaded
            | Self::NoBackend { .. }
            | Self::IdentityUnavailable
            | Self::ShuttingDown
            | Self::Limited(Refused::Unleased { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word for it: in bodies, in `x-quota-reason` and as a metric's label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::SourceLimit { .. } => "source_limit",
            Self::MissingTenant => "missing_tenant",
            Self::InvalidKey => "invalid_subscription_key",
            Self::UnknownRoute => "unknown_route",
            Self::InvalidRequest(_) => "invalid_request",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::Overloaded => "overloaded",
            Self::BodyTimeout => "body_timeout",
            Self::UnknownDeployment => "unknown_deployment",
            Self::DeploymentNotAllowed(_) => "deployment_not_allowed",
            Self::Limited(refused) => match refused {
                Refused::Calls { .. } => "rate_limit",
                Refused::Concurrency { .. } => "concurrency_limit",
                Refused::Tokens { .. } => "token_budget_exceeded",
                Refused::Prompt { .. } => "prompt_exceeds_budget",
                Refused::TokenQuota { .. } => "token_quota_exceeded",
                Refused::SpendQuota { .. } => "spend_quota_exceeded",
                Refused::Unleased { .. } => "store_unavailable",
            },
            Self::NoBackend { .. } => "no_backend",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout(_) => "upstream_timeout",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// How long until coming back helps; `None` where it does not, or nobody knows.
    #[must_use]
    pub fn wait(&self, now: Now) -> Option<Duration> {
        match self {
            Self::SourceLimit { wait } | Self::NoBackend { wait } => Some(*wait),
            Self::Limited(refused) => match *refused {
                Refused::Calls { wait, .. }
                | Refused::Concurrency { wait, .. }
                | Refused::Tokens { wait, .. }
                | Refused::Unleased { wait } => Some(wait),
                Refused::TokenQuota { ends_at, .. } | Refused::SpendQuota { ends_at, .. } => {
                    Some(Duration::from_secs(ends_at.saturating_sub(now.utc_seconds)))
                }
                Refused::Prompt { .. } => None,
            },
            Self::IdentityUnavailable | Self::Overloaded | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::MissingTenant
            | Self::InvalidKey
            | Self::UnknownRoute
            | Self::InvalidRequest(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTimeout
            | Self::UnknownDeployment
            | Self::DeploymentNotAllowed(_)
            | Self::UpstreamError
            | Self::UpstreamTimeout(_) => None,
        }
    }

    /// Whether the request counts as one of its tenant's calls of the minute: it was wrong, and had cost as much as a call when
    /// that was seen. What a limit refuses does not, so that its wait stays exact.
    #[must_use]
    pub const fn counts_as_call(&self) -> bool {
        match self {
            Self::InvalidRequest(_)
            | Self::BodyTooLarge(_)
            | Self::BodyTimeout
            | Self::UnknownDeployment
            | Self::DeploymentNotAllowed(_)
            | Self::Limited(Refused::Prompt { .. }) => true,
            Self::SourceLimit { .. }
            | Self::MissingTenant
            | Self::InvalidKey
            | Self::UnknownRoute
            | Self::Overloaded
            | Self::Limited(
                Refused::Calls { .. }
                | Refused::Concurrency { .. }
                | Refused::Tokens { .. }
                | Refused::TokenQuota { .. }
                | Refused::SpendQuota { .. }
                | Refused::Unleased { .. },
            )
            | Self::NoBackend { .. }
            | Self::UpstreamError
            | Self::UpstreamTimeout(_)
            | Self::IdentityUnavailable
            | Self::ShuttingDown => false,
        }
    }

    /// Whether the connection is of no further use: there is unread body on it.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self, Self::BodyTooLarge(_) | Self::Overloaded | Self::BodyTimeout)
    }

    /// The response's head and body.
    #[must_use]
    pub fn render(
        &self,
        format: ErrorFormat,
        tenant: Option<&TenantName>,
        now: Now,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(QUOTA_REASON, HeaderValue::from_static(self.reason()));
        let wait = self.wait(now);
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
            headers.insert(
                RETRY_AFTER_MS,
                HeaderValue::from(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            );
        }
        let body = Bytes::from(self.body(format, tenant, wait).to_string());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        (self.status(), headers, body)
    }

    fn body(&self, format: ErrorFormat, tenant: Option<&TenantName>, wait: Option<Duration>) -> Value {
        let mut body = match format {
            ErrorFormat::Flat => json!({"error": self.reason(), "message": self.to_string()}),
            ErrorFormat::OpenAi => json!({"error": {
                "code": self.reason(),
                "message": self.to_string(),
                "type": self.openai_type(),
                "param": null,
            }}),
        };
        if let Some(tenant) = tenant {
            body["tenant"] = tenant.as_str().into();
        }
        if let Some(limit) = self.limit() {
            body["limit"] = limit;
        }
        if let Some(wait) = wait {
            body["retryAfter"] = whole_seconds(wait).to_string().into();
        }
        if let Self::Limited(Refused::TokenQuota { ends_at, .. } | Refused::SpendQuota { ends_at, .. }) = self
        {
            body["periodEnds"] = utc(*ends_at).into();
        }
        body
    }

    /// The limit in numbers: tokens, calls, bytes, or dollars for a spend quota.
    fn limit(&self) -> Option<Value> {
        match self {
            Self::Limited(refused) => Some(match *refused {
                Refused::Calls { limit, .. } | Refused::Concurrency { limit, .. } => limit.into(),
                Refused::Tokens { limit, .. }
                | Refused::Prompt { limit, .. }
                | Refused::TokenQuota { limit, .. } => limit.get().into(),
                Refused::SpendQuota { limit, .. } => limit.as_dollars().into(),
                Refused::Unleased { .. } => return None,
            }),
            Self::BodyTooLarge(limit) => Some((*limit).into()),
            _ => None,
        }
    }

    /// The `type` of an error object of OpenAI's.
    #[must_use]
    pub const fn openai_type(&self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.as_u16() >= 500 => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceLimit { wait } => write!(
                f,
                "too many calls come from this address; come back in {} s",
                whole_seconds(*wait)
            ),
            Self::MissingTenant => f.write_str(
                "no subscription key: send it as `api-key`, `Ocp-Apim-Subscription-Key` or `Authorization: Bearer`",
            ),
            Self::InvalidKey => f.write_str("the subscription key is wrong, suspended or removed"),
            Self::UnknownRoute => f.write_str(
                "no such route: the gateway serves chat/completions, completions, embeddings and responses",
            ),
            Self::InvalidRequest(problem) => f.write_str(problem),
            Self::BodyTooLarge(limit) => write!(f, "the body is larger than {limit} bytes"),
            Self::Overloaded => f.write_str("too much is held in memory at the moment; come back in 1 s"),
            Self::BodyTimeout => f.write_str("the body did not arrive in time"),
            Self::UnknownDeployment => f.write_str("no such deployment"),
            Self::DeploymentNotAllowed(deployment) => {
                write!(f, "this tenant may not use the deployment `{deployment}`")
            }
            Self::Limited(refused) => limited(f, refused),
            Self::NoBackend { .. } => f.write_str("no backend for this deployment can be reached at the moment"),
            Self::UpstreamError => f.write_str("the backend could not be reached or broke off"),
            Self::UpstreamTimeout(timeout) => {
                write!(f, "the backend did not answer within {} s", timeout.as_secs_f64())
            }
            Self::IdentityUnavailable => f.write_str("the gateway has no identity token at the moment"),
            Self::ShuttingDown => f.write_str("the gateway is shutting down; the same call can be made again"),
        }
    }
}

fn limited(f: &mut fmt::Formatter<'_>, refused: &Refused) -> fmt::Result {
    match refused {
        Refused::Calls { limit, wait } => {
            write!(
                f,
                "the limit of {limit} calls a minute is reached; come back in {} s",
                whole_seconds(*wait)
            )
        }
        Refused::Concurrency { limit, .. } => write!(f, "{limit} calls are open already, which is the limit"),
        Refused::Tokens { limit, wait } => write!(
            f,
            "the budget of {limit} tokens a minute has no room for this call; come back in {} s",
            whole_seconds(*wait)
        ),
        Refused::Prompt { limit, prompt, .. } if prompt > limit => write!(
            f,
            "the prompt of about {prompt} tokens is larger than the whole budget of {limit} tokens a minute"
        ),
        Refused::Prompt { limit, prompt, answers: 1 } => write!(
            f,
            "the prompt of about {prompt} tokens leaves no room for an answer in the whole budget of {limit} tokens a minute"
        ),
        Refused::Prompt { limit, prompt, answers } => write!(
            f,
            "{answers} answers at once (`n`, `best_of` or a list of prompts) have no room beside the prompt of about {prompt} \
             tokens in the whole budget of {limit} tokens a minute: ask for fewer"
        ),
        Refused::TokenQuota { limit, period, ends_at } => {
            write!(f, "the {period} quota of {limit} tokens is used up until {}", utc(*ends_at))
        }
        Refused::SpendQuota { limit, period, ends_at } => {
            write!(f, "the {period} quota of ${:.2} is used up until {}", limit.as_dollars(), utc(*ends_at))
        }
        Refused::Unleased { wait } => write!(
            f,
            "the store that holds the fleet's budgets does not answer; come back in {} s",
            whole_seconds(*wait)
        ),
    }
}

/// Whole seconds, rounded up: a caller that waits so long is not too early.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// A moment as RFC 3339 writes it.
#[must_use]
pub fn utc(unix_seconds: u64) -> String {
    let (year, month, day) = crate::limits::period::civil_date(unix_seconds);
    let second = unix_seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// A count of tokens as a header's value.
#[must_use]
pub fn token_value(tokens: Tokens) -> HeaderValue {
    HeaderValue::from(tokens.get())
}
