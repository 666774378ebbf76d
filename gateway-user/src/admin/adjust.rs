//! `POST /usage/adjust`: an operator gives back to a tenant, or charges it, beside its calls.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::json as answer;
use crate::gateway::Gateway;
use crate::ledger::{Adjustment, Note, Signed};
use crate::names::TenantName;
use crate::reply::utc;
use crate::store::AdjustError;
use crate::units::signed_nano_dollars;

/// Where it is asked for.
pub(crate) const ADJUST: &str = "/usage/adjust";
/// More than the longest note and name take, all of it escaped.
const MOST_BODY: usize = 8 << 10;
/// A page in a browser can send no such type to another site unasked.
const JSON: &str = "application/json";

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Whose books.
    pub(crate) tenant: String,
    /// What is charged, or, below zero, given back.
    #[serde(default)]
    pub(crate) tokens: i64,
    /// The same of money, as a decimal text: no digit of it is lost so.
    #[serde(default)]
    pub(crate) dollars: Option<String>,
    /// Why.
    pub(crate) note: String,
    /// Also beyond what was assumed.
    #[serde(default)]
    pub(crate) force: bool,
}

/// Does what is asked for in the body, as far as the books allow it.
pub(super) async fn adjust(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_json = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(';').next().unwrap_or_default().trim() == JSON)
    };
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    #[expect(clippy::disallowed_methods, reason = "within a limit")]
    let body = Limited::new(request.into_body(), MOST_BODY).collect().await;
    let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
        return refuse(StatusCode::BAD_REQUEST, "the body breaks off, or is longer than 8 KiB");
    };
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let forced = asked.force;
    match asked.adjustment(gateway.clock.now().utc_seconds) {
        Ok(adjustment) => apply(gateway, adjustment, forced).await,
        Err(problem) => refuse(StatusCode::BAD_REQUEST, &problem),
    }
}

async fn apply(gateway: &Gateway, adjustment: Adjustment, forced: bool) -> Response<Full<Bytes>> {
    let Some(store) = &gateway.store else {
        let problem = "the books of a fleet (`store.url` is a redis URL) cannot be adjusted: its nodes share the counters of \
                       quotas, and none of them may change another's";
        return refuse(StatusCode::NOT_IMPLEMENTED, problem);
    };
    let Some(account) = gateway.account(&adjustment.tenant) else {
        let problem = format!("there is no tenant `{}`", adjustment.tenant);
        return refuse(StatusCode::NOT_FOUND, &problem);
    };
    let changed = adjustment.clone();
    match store.adjust(&account, adjustment, forced, (&gateway.metrics, gateway.clock.now())).await {
        Ok(on_disk) => {
            log(&changed, forced, on_disk);
            let sums = changed.sums();
            let body = json!({
                "tenant": changed.tenant.as_str(),
                "time": utc(changed.at),
                "adjusted_tokens": sums.adjusted_tokens(),
                "adjusted_dollars": sums.adjusted_dollars(),
                "note": changed.note.as_str(),
                "on_disk": on_disk,
            });
            answer(StatusCode::OK, &body)
        }
        Err(error @ AdjustError::BeyondAssumed(_)) => refuse(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ AdjustError::Store(_)) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn log(adjustment: &Adjustment, forced: bool, on_disk: bool) {
    let Adjustment { tenant, at: _, tokens, cost, note } = adjustment;
    tracing::info!(
        %tenant,
        given_back_tokens = tokens.amount_given_back(),
        given_back_nano_dollars = cost.amount_given_back(),
        charged_tokens = tokens.amount_charged(),
        charged_nano_dollars = cost.amount_charged(),
        %note,
        forced,
        on_disk,
        "usage adjusted"
    );
}

impl Asked {
    fn adjustment(self, at: u64) -> Result<Adjustment, String> {
        let Self { tenant, tokens, dollars, note, force: _ } = self;
        let tenant = TenantName::new(&tenant).map_err(|error| format!("the tenant's name {error}"))?;
        let cost = dollars.as_deref().map_or(Some(0), signed_nano_dollars);
        let cost = cost.ok_or("`dollars` must be a decimal number with at most nine decimals, as text")?;
        let note = Note::new(&note).map_err(|error| error.to_string())?;
        let (tokens, cost) = (Signed::of(tokens), Signed::of(cost));
        if tokens.is_zero() && cost.is_zero() {
            return Err("nothing is adjusted: name `tokens` or `dollars`".to_owned());
        }
        Ok(Adjustment { tenant, at, tokens, cost, note })
    }
}

fn refuse(status: StatusCode, problem: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({"error": problem}))
}
