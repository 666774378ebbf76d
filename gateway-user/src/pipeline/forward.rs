//! Sending a call upstream: the first backend that takes it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Uri};

use super::answer::Received;
use super::wait;
use crate::billing::{End, Metered};
use crate::buffers::Reserved;
use crate::call::Call;
use crate::config::Forward;
use crate::relay::Source;
use crate::reply::Refusal;
use crate::request::query;
use crate::session::Session;
use crate::upstream::backend::{Backend, ConnectError};
use crate::upstream::connection::{Outgoing, SendError};

/// What is sent upstream.
pub(super) struct Forwarded {
    pub(super) parts: Parts,
    /// What to ask for, behind the backend's own path.
    pub(super) target: PathAndQuery,
    pub(super) body: Vec<Bytes>,
    /// The memory of its body, where the call does not have it.
    pub(super) _reserved: Option<Reserved>,
}

/// Sends a request to the first backend that takes it, and waits for the head of the response. Another backend is
/// tried only while nothing has been sent.
pub(super) async fn send(
    session: &Arc<Session>,
    call: &mut Call,
    forwarded: Forwarded,
) -> Result<Received, Refusal> {
    let Forwarded { mut parts, target, body, _reserved } = forwarded;
    parts.headers.reserve(2);
    let mut request = Request::from_parts(parts, body);
    let deployment = Arc::clone(&call.deployment);
    let mut refusal = None;
    for backend in deployment.backends.order() {
        match backend.authorization(session.gateway.clock.now().utc_seconds) {
            Ok(Some(token)) => {
                request.headers_mut().insert(AUTHORIZATION, token);
            }
            Ok(None) => {
                request.headers_mut().remove(AUTHORIZATION);
            }
            Err(_no_token) => {
                refusal = Some(Refusal::IdentityUnavailable);
                continue;
            }
        }
        request.headers_mut().insert(HOST, backend.host_header.clone());
        *request.uri_mut() = behind(&backend.base_path, &target)?;
        match exchange(session, call, backend, &request).await {
            Ok(received) => return Ok(received),
            Err(Failure::Unsent) => refusal = Some(Refusal::UpstreamError),
            Err(Failure::Out(wait)) => refusal = Some(passed_over(refusal, wait)),
            Err(Failure::Final(refusal)) => return Err(refusal),
        }
    }
    Err(refusal.unwrap_or(Refusal::NoBackend { wait: Duration::ZERO }))
}

/// What a call is told that passed over a backend which may be back after `wait`: what went wrong with another, else
/// when to come back for the first.
fn passed_over(so_far: Option<Refusal>, wait: Duration) -> Refusal {
    match so_far {
        None => Refusal::NoBackend { wait },
        Some(Refusal::NoBackend { wait: other }) => Refusal::NoBackend { wait: wait.min(other) },
        Some(other) => other,
    }
}

/// Why a backend gave no response.
enum Failure {
    /// Nothing was sent: another backend may be tried with the same request.
    Unsent,
    /// It is out and was not tried; this long until it is.
    Out(Duration),
    /// No other is to be tried.
    Final(Refusal),
}

async fn exchange(
    session: &Arc<Session>,
    call: &mut Call,
    backend: &Arc<Backend>,
    request: &Outgoing,
) -> Result<Received, Failure> {
    loop {
        let (mut connection, reused) = match session.worker.pool.take(&backend.authority) {
            Some(connection) => (connection, true),
            None => match backend.connect().await {
                Ok(connection) => (connection, false),
                Err(ConnectError::Out(_, wait)) => return Err(Failure::Out(wait)),
                Err(_logged) => return Err(Failure::Unsent),
            },
        };
        // Since its key was looked up its body had to come, and perhaps a lease and a connection.
        if let Some(refusal) = call.permission().withdrawn() {
            return Err(Failure::Final(refusal));
        }
        call.forwarding(&backend.name);
        let sending = connection.send(request);
        let permission = call.permission();
        let timeout = backend.timeout(&call.deployment.facts);
        let (refusal, end) = match wait::for_upstream(&permission, timeout, sending).await {
            Ok(Ok(response)) => {
                call.answering(response.status(), response.headers());
                let source = Source {
                    connection,
                    authority: Arc::clone(&backend.authority),
                    idle_timeout: backend.idle_timeout(&call.deployment.facts),
                    stall_timeout: backend.stall_timeout(),
                };
                return Ok(Received { response, source, backend: Arc::clone(backend) });
            }
            // Closed while it was idle, and before anything was written: any other connection will do.
            Ok(Err(SendError::Unsent(error))) => {
                call.not_forwarded();
                if !reused {
                    tracing::warn!(backend = %backend.name, error = %error, "upstream took no request");
                    return Err(Failure::Unsent);
                }
                continue;
            }
            Ok(Err(SendError::Broken(error))) => {
                tracing::warn!(backend = %backend.name, error = %error, "upstream broke off");
                // Azure cannot have worked on a request that it has not read to its end.
                let end = if connection.has_sent_all() { End::Unfinished } else { End::Unbilled };
                (Refusal::UpstreamError, end)
            }
            // Upstream may be doing all that it was allowed to.
            Err(refusal) => (refusal, End::Unfinished),
        };
        drop(connection);
        call.settle(end, &Metered::default());
        return Err(Failure::Final(refusal));
    }
}

/// The path and query to ask a backend for: the caller's, with what of the query goes upstream.
pub(super) fn target(uri: &Uri, allowed: &Forward) -> Result<PathAndQuery, Refusal> {
    let Some(query) = uri.query() else { return path_and_query(uri.path().to_owned()) };
    let kept = query::forwarded(query, &allowed.query)
        .map_err(|twice| Refusal::InvalidRequest(twice.to_string()))?;
    match (kept, uri.path_and_query()) {
        // As it came: the usual case.
        (Cow::Borrowed(_), Some(target)) => Ok(target.clone()),
        (kept, _) if kept.is_empty() => path_and_query(uri.path().to_owned()),
        (kept, _) => path_and_query(format!("{}?{kept}", uri.path())),
    }
}

/// A target behind the backend's own path.
fn behind(base_path: &str, target: &PathAndQuery) -> Result<Uri, Refusal> {
    let target =
        if base_path.is_empty() { target.clone() } else { path_and_query(format!("{base_path}{target}"))? };
    Ok(Uri::from(target))
}

fn path_and_query(target: String) -> Result<PathAndQuery, Refusal> {
    PathAndQuery::try_from(target)
        .map_err(|error| Refusal::InvalidRequest(format!("the path cannot be forwarded: {error}")))
}
