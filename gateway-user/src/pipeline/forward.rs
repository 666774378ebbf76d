//! Sending a call upstream: the first backend that takes it.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use super::answer::Received;
use crate::api::Api;
use crate::call::{Call, Settlement};
use crate::reply::Refusal;
use crate::request::forward::upstream_headers;
use crate::request::query;
use crate::serve::session::Session;
use crate::upstream::backend::Backend;
use crate::upstream::body::RequestBody;
use crate::upstream::connection::{Connection, SendError};

/// A request as it goes upstream.
pub(super) struct Outgoing {
    pub(super) parts: Parts,
    pub(super) body: Vec<Bytes>,
    /// The caller's body, where its prompt is to be tokenised while upstream works.
    pub(super) prompt: Option<Bytes>,
    pub(super) api: Api,
}

/// Sends a request to the first backend that takes it, and waits for the head of the response. Another backend is
/// tried only while nothing has been sent.
pub(super) async fn send(
    session: &Arc<Session>,
    call: &mut Call,
    outgoing: Outgoing,
) -> Result<Received, Refusal> {
    let Outgoing { parts, body, prompt, api } = outgoing;
    let path = parts.uri.path();
    let query = parts.uri.query().map(query::without_keys).filter(|query| !query.is_empty());
    let mut headers = upstream_headers(parts.headers);
    let deployment = Arc::clone(&call.deployment);
    let mut refusal = Refusal::NoBackend;
    for backend in &deployment.backends {
        let now = session.gateway.clock.now().utc_seconds;
        match backend.authorization(now) {
            Ok(Some(token)) => {
                headers.insert(AUTHORIZATION, token);
            }
            Ok(None) => {}
            Err(_no_token) => {
                refusal = Refusal::IdentityUnavailable;
                continue;
            }
        }
        headers.insert(HOST, backend.host_header.clone());
        let uri = uri(&backend.base_path, path, query.as_deref())?;
        let request = request(uri, &headers, RequestBody::new(body.clone()));
        match exchange(session, call, backend, request, prompt.as_ref().map(|prompt| (api, prompt))).await {
            Ok(received) => return Ok(received),
            Err(Failure::Unsent) => {
                call.not_forwarded();
                refusal = Refusal::UpstreamError;
            }
            Err(Failure::Broken) => {
                // The prompt was sent; whether upstream worked on it nobody knows, and what fails it does not bill.
                call.settle(Settlement::Nothing);
                return Err(Refusal::UpstreamError);
            }
            Err(Failure::Timeout) => return Err(Refusal::UpstreamTimeout(backend.timeout)),
        }
    }
    Err(refusal)
}

/// Why a backend gave no response.
enum Failure {
    /// Nothing was sent: another backend may be tried.
    Unsent,
    /// It broke off after the request.
    Broken,
    /// It did not answer in time.
    Timeout,
}

async fn exchange(
    session: &Arc<Session>,
    call: &mut Call,
    backend: &Arc<Backend>,
    mut request: Request<RequestBody>,
    prompt: Option<(Api, &Bytes)>,
) -> Result<Received, Failure> {
    loop {
        let (mut connection, reused) = match session.worker.pool.take(&backend.authority) {
            Some(connection) => (connection, true),
            None => (connect(backend).await?, false),
        };
        call.forwarding();
        let sent = wait_for_head(call, &mut connection, backend, request, prompt).await?;
        let response = match sent {
            Ok(response) => response,
            // Closed while it was idle, and before anything was written: any other connection will do.
            Err(SendError::Unsent(unsent)) if reused => {
                request = *unsent;
                continue;
            }
            Err(SendError::Unsent(_)) => return Err(Failure::Unsent),
            Err(SendError::Broken(error)) => {
                tracing::warn!(backend = %backend.name, error = %error, "upstream broke off");
                return Err(Failure::Broken);
            }
            Err(SendError::Closed) => {
                tracing::warn!(backend = %backend.name, "upstream closed the connection without a response");
                return Err(Failure::Broken);
            }
        };
        call.answering(response.status());
        return Ok(Received {
            response,
            connection,
            authority: Arc::clone(&backend.authority),
            idle_timeout: backend.idle_timeout,
        });
    }
}

/// Boxed, because it is rare and large: a TLS handshake's state is no part of every call.
async fn connect(backend: &Arc<Backend>) -> Result<Connection, Failure> {
    Box::pin(backend.connect()).await.map_err(|error| {
        tracing::warn!(backend = %backend.name, error = %error, "cannot connect to backend");
        Failure::Unsent
    })
}

/// Sends, and while upstream works takes the closer estimate of the prompt where that is wanted.
async fn wait_for_head(
    call: &mut Call,
    connection: &mut Connection,
    backend: &Backend,
    request: Request<RequestBody>,
    prompt: Option<(Api, &Bytes)>,
) -> Result<Result<http::Response<hyper::body::Incoming>, SendError>, Failure> {
    let mut sending = pin!(connection.send(request));
    // The first poll writes the request.
    let first = std::future::poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
    if let Some((api, body)) = prompt
        && !call.estimated
    {
        let deployment = Arc::clone(&call.deployment);
        let estimate = super::estimate(api, &deployment, body);
        let estimate = if let Poll::Ready(early) = first {
            call.estimate(estimate.await);
            return Ok(early);
        } else {
            estimate.await
        };
        call.estimate(estimate);
    } else if let Poll::Ready(early) = first {
        return Ok(early);
    }
    tokio::time::timeout(backend.timeout, sending).await.map_err(|_elapsed| Failure::Timeout)
}

fn request(uri: Uri, headers: &HeaderMap<HeaderValue>, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers.clone();
    request
}

fn uri(base_path: &str, path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let mut target =
        String::with_capacity(base_path.len() + path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(base_path);
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    // Both halves came out of a URI, so that together they make one.
    let target = PathAndQuery::try_from(target)
        .map_err(|error| Refusal::InvalidRequest(format!("the path cannot be forwarded: {error}")))?;
    Ok(Uri::from(target))
}
