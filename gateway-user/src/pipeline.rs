//! The order of steps that a request takes, and the only file that knows it:
//! source → route → tenant → body → deployment → admit → backend → forward → relay.

mod admit;
mod answer;
mod body;
mod cors;
mod demand;
mod forward;
mod listing;
mod source;
mod wait;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::call::Call;
use crate::gateway::{Access, Deployment, Snapshot, Tenant};
use crate::names::{DeploymentName, TenantName};
use crate::relay::HeldAnswer;
use crate::reply::Refusal;
use crate::request::forward::{caller_key, is_encoded, strip_request};
use crate::request::splice::splice;
use crate::request::{Envelope, Route, query, route};
use crate::request_id::{GATEWAY_REQUEST_ID, REQUEST_ID, RequestId};
use crate::session::{OpenCall, Session};
use crate::tenant::KeySlot;
use crate::units::Tokens;

use admit::{Asking, LetIn};
use body::Body;
use cors::Cors;

pub(crate) use answer::ReplyBody;
use demand::Demand;

/// The smallest limit on an answer that every API takes (Azure OpenAI, "Responses API", `max_output_tokens`).
const LEAST_LIMIT: Tokens = Tokens::new(16);

/// One request on its way through the steps.
struct Visit<'a> {
    session: &'a Arc<Session>,
    snapshot: Arc<Snapshot>,
    arrived: Instant,
    request_id: RequestId,
    version: Version,
    /// Known from the second step on; for the answer, the log and the metrics of a refusal.
    tenant: Option<TenantName>,
    deployment: Option<DeploymentName>,
    /// Whose call it is, once it is known to be one.
    calling: Option<Arc<Tenant>>,
}

/// A tenant that may call, and with which key it did.
struct Caller {
    tenant: Arc<Tenant>,
    slot: KeySlot,
}

/// Answers a request.
pub(crate) async fn handle(
    session: Arc<Session>,
    open: OpenCall,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    session.worker.streams_first().await;
    let mut visit = Visit {
        snapshot: session.gateway.snapshot(),
        arrived: Instant::now(),
        request_id: session.worker.request_ids.next(),
        version: request.version(),
        session: &session,
        tenant: None,
        deployment: None,
        calling: None,
    };
    let (mut parts, mut incoming) = request.into_parts();
    parts.uri = route::with_one_slash(parts.uri);
    let cors = Cors::of(&visit.snapshot.config.listen.cors_origins, &parts.headers);
    let unread = body::Unread::of(&parts.headers);
    let mut response = match visit.answer(parts, &mut incoming, &cors, &open).await {
        Ok(response) => response,
        Err(refusal) => {
            let pause = visit.refused(&refusal, &open).await;
            let response = visit.refuse(&refusal, &open);
            unread.discard(&mut incoming, &refusal, &session.activity).await;
            pause.begin(&session);
            response
        }
    };
    cors.tell(response.headers_mut());
    response.headers_mut().insert(GATEWAY_REQUEST_ID, visit.request_id.header());
    response
}

impl Visit<'_> {
    async fn answer(
        &mut self,
        mut parts: Parts,
        incoming: &mut Incoming,
        cors: &Cors,
        open: &OpenCall,
    ) -> Result<Response<ReplyBody>, Refusal> {
        self.charge_source()?;
        if let Some(headers) = cors.preflight(&parts) {
            return Ok(self.preflight(headers, open));
        }
        let route = Route::of(&parts.method, parts.uri.path()).ok_or(Refusal::UnknownRoute)?;
        if route == Route::Health {
            return Ok(self.health(open));
        }
        let caller = self.identify(&parts)?;
        let Route::Call { api, deployment: in_path } = route else {
            return self.listing(route, &caller, open);
        };
        let gateway = &self.session.gateway;
        let tenant = &caller.tenant;
        self.calling = Some(Arc::clone(tenant));
        // For what is said of a refusal before the body has come.
        self.deployment =
            in_path.and_then(|name| self.snapshot.deployment(name)).map(|deployment| deployment.name.clone());
        if let Err(refused) = tenant.account.may_call(tenant.limits(), gateway.clock.now()) {
            return Err(self.limited(tenant, refused).await);
        }
        if is_encoded(&parts.headers) {
            return Err(Refusal::InvalidRequest(
                "a compressed body cannot be metered: send it plain".to_owned(),
            ));
        }
        let target = forward::target(&parts.uri, &self.snapshot.config.forward)?;
        let reading = tenant.start_reading().map_err(Refusal::Limited)?;
        let mut reserved = gateway.buffers.reserve(&tenant.buffered);
        let listen = &self.snapshot.config.listen;
        let memory = (&tenant.name, &mut reserved);
        let mut body = Body::read(incoming, &parts.headers, self.session, listen, memory).await?;
        let (body, (envelope, bound)) = body.parsed()?;
        let deployment = self.deployment(tenant, in_path, &parts, &envelope)?;
        let version = in_path.and_then(|_| query::api_version(parts.uri.query()?));
        let demand =
            Demand { api, envelope: &envelope, deployment: &deployment, api_version: version.as_deref() };
        demand.check(tenant)?;
        let asking = Asking { demand: &demand, deployment: &deployment, body, bound, reserved };
        let LetIn { mut call, grant, reserved } = self.admit(caller, asking).await?;
        // A body that waits to be let in, perhaps for a lease, is still one that is not a call.
        drop(reading);
        self.accepted(&call.tenant.name);
        let limit = match demand.limit(&grant) {
            Some(limit) => Some(within_window(&mut call, limit).await),
            None => None,
        };
        let edits = demand.edits(limit);
        let (streaming, hide_usage) = (demand.streams(), demand.adds_usage());
        strip_request(&mut parts.headers, &self.snapshot.config.forward.headers);
        let request = forward::Forwarded { parts, target, body: splice(body, edits), _reserved: reserved };
        let manner =
            answer::Manner { api, streaming, hide_usage, trailers: self.version == Version::HTTP_2, grant };
        let answered = match forward::send(self.session, &mut call, request).await {
            Ok(received) => answer::relay(self.session, call, received, manner, open.clone()).await,
            Err(refusal) => {
                call.refused(&refusal);
                Err(refusal)
            }
        };
        // The call has counted and logged its own end.
        answered.or_else(|refusal| Ok(self.reply(&refusal, open)))
    }

    fn identify(&mut self, parts: &Parts) -> Result<Caller, Refusal> {
        let key = caller_key(&parts.headers, parts.uri.query()).ok_or(Refusal::MissingTenant)?;
        match self.snapshot.access(&key) {
            Access::Granted(tenant, slot) => {
                self.tenant = Some(tenant.name.clone());
                self.session.activity.is_known();
                Ok(Caller { tenant: Arc::clone(tenant), slot })
            }
            Access::Suspended(name) => {
                self.tenant = Some(name.clone());
                Err(Refusal::InvalidKey)
            }
            Access::Unknown => Err(Refusal::InvalidKey),
        }
    }

    /// The deployment that the path names, else the body. A query that names another is refused; so that no reading of the
    /// request reaches another deployment, a body's `model` beside the path is replaced.
    fn deployment(
        &mut self,
        tenant: &Tenant,
        in_path: Option<&str>,
        parts: &Parts,
        envelope: &Envelope<'_>,
    ) -> Result<Arc<Deployment>, Refusal> {
        let in_body = || envelope.model.as_ref().and_then(|model| model.name.as_deref());
        let name = in_path.or_else(in_body).ok_or_else(|| {
            Refusal::InvalidRequest("the field `model` must name the deployment".to_owned())
        })?;
        let deployment = self.snapshot.deployment(name).ok_or(Refusal::UnknownDeployment)?;
        self.deployment = Some(deployment.name.clone());
        let agrees = |other: &str| other == deployment.name.as_str() || other == deployment.model.as_str();
        let mut in_query = parts.uri.query().into_iter().flat_map(query::deployments);
        if let Some(other) = in_query.find(|other| !agrees(other)) {
            return Err(Refusal::InvalidRequest(format!(
                "the request names two deployments: `{name}` and `{}`",
                other.chars().take(64).collect::<String>()
            )));
        }
        if !tenant.allows(deployment) {
            return Err(Refusal::DeploymentNotAllowed(deployment.name.clone()));
        }
        Ok(Arc::clone(deployment))
    }

    /// Answers, counts and logs a request that came to no call.
    fn refuse(&self, refusal: &Refusal, open: &OpenCall) -> Response<ReplyBody> {
        if let Some(tenant) = &self.calling
            && refusal.counts_as_call()
        {
            tenant.account.count_call(self.session.gateway.clock.now());
        }
        let (tenant, reason) = (self.tenant.as_ref(), refusal.reason());
        let metrics = &self.session.gateway.metrics;
        metrics.request(tenant, self.deployment.as_ref(), refusal.status().as_u16(), reason);
        if let (Some(tenant), Refusal::Limited(_)) = (tenant, refusal) {
            metrics.throttled(tenant, reason);
        }
        // Its penalty was logged when it began: a flood must not fill the log.
        if matches!(refusal, Refusal::SourceLimit { .. }) {
            return self.reply(refusal, open);
        }
        tracing::info!(
            request_id = %self.request_id,
            tenant = tenant.map(TenantName::as_str),
            deployment = self.deployment.as_ref().map(DeploymentName::as_str),
            status = refusal.status().as_u16(),
            reason,
            source = %self.session.caller.address(),
            duration_ms = self.arrived.elapsed().as_secs_f64() * 1000.0,
            "refused"
        );
        self.reply(refusal, open)
    }

    /// An answer of the gateway's own.
    fn own(&self, status: StatusCode, body: Bytes, open: &OpenCall) -> Response<ReplyBody> {
        let body = if body.is_empty() {
            ReplyBody::empty(open.clone())
        } else {
            let held = HeldAnswer::own(VecDeque::from([body]), self.session.idle_timeout);
            let over_http2 = self.version == Version::HTTP_2;
            ReplyBody::new(self.session.worker.relays.deliver(held, over_http2, open), open.clone())
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(REQUEST_ID, self.request_id.header());
        response
    }

    fn reply(&self, refusal: &Refusal, open: &OpenCall) -> Response<ReplyBody> {
        let format = self.snapshot.config.errors;
        let (status, headers, body) =
            refusal.render(format, self.tenant.as_ref(), self.session.gateway.clock.now());
        let mut response = self.own(status, body, open);
        response.headers_mut().extend(headers);
        if refusal.closes() && self.version != Version::HTTP_2 {
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A limit on an answer that leaves room for the prompt in the model's window. Azure refuses a limit that does not.
async fn within_window(call: &mut Call, limit: Tokens) -> Tokens {
    let Some(window) = call.deployment.facts.context_window else { return limit };
    if limit > window.saturating_sub(call.prompt.held()) {
        // The bytes of a prompt say too little here.
        call.count().await;
    }
    limit.min(window.saturating_sub(call.prompt.held()).max(LEAST_LIMIT))
}
