//! The operators' side: `/metrics`, `/healthz`, `/readyz`, `/status`, `/usage` and `/kernel`, in plain HTTP on an address of
//! its own.

pub(crate) mod adjust;
mod budgets;
mod exposition;
pub(crate) mod kernel;
mod process;
mod status;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::gateway::Gateway;
use crate::ledger::Query;
use crate::supervise::{Supervisor, fault};

/// Connections at once; a scraper, two probes and a person need four.
const MOST_CONNECTIONS: usize = 64;
const TEXT: &str = "text/plain; charset=utf-8";
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Why a process that stops by itself is neither ready nor healthy.
const FAILED: &str = "shutting down: a part of the gateway has failed, and the log says which";

/// Serves the operators' side.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateway: Arc<Gateway>,
    registry: Registry,
    supervisor: Supervisor,
}

/// Listens, before there is anything to tell.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Admin {
    /// The operators' side behind a listener from [`bind`].
    ///
    /// # Errors
    /// When the runtime does not take the listener.
    pub fn new(
        listener: StdListener,
        gateway: &Arc<Gateway>,
        mut registry: Registry,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        registry.register_collector(Box::new(budgets::Budgets::new(gateway)));
        registry.register_collector(Box::new(process::Process));
        registry.register_collector(Box::new(kernel::Packets(Arc::clone(&gateway.shedder))));
        let listener = TcpListener::from_std(listener)?;
        let shared =
            Arc::new(Shared { gateway: Arc::clone(gateway), registry, supervisor: supervisor.clone() });
        Ok(Self { listener, shared })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever.
    #[expect(clippy::disallowed_methods, reason = "a connection ends by itself, and alone")]
    pub async fn run(self) {
        let Self { listener, shared } = self;
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            fault::point("admin");
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept on the admin address");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let shared = Arc::clone(&shared);
            let from_here = is_from_here(stream.peer_addr(), stream.local_addr());
            tokio::spawn(async move {
                let service = service_fn(async |request: Request<Incoming>| {
                    Ok::<_, Infallible>(answer(&shared, request, from_here).await)
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(error = %error, "admin connection ended");
                }
                drop(permit);
            });
        }
    }
}

/// Whether a connection comes from the gateway's own host, or its own container: from the loopback interface, or from the
/// address that it goes to.
fn is_from_here(peer: io::Result<SocketAddr>, local: io::Result<SocketAddr>) -> bool {
    let (Ok(peer), Ok(local)) = (peer, local) else { return false };
    let (peer, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
    peer.is_loopback() || peer == local
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, from_here: bool) -> Response<Full<Bytes>> {
    if request.method() == Method::GET && request.uri().path() == "/usage" {
        return usage(shared, request.uri().query().unwrap_or_default()).await;
    }
    if request.uri().path() == adjust::ADJUST {
        return match *request.method() {
            // The address may be open to whoever reads metrics; they are not to give out money.
            Method::POST if !from_here => text(StatusCode::FORBIDDEN, "only from the gateway's own host\n"),
            Method::POST => adjust::adjust(&shared.gateway, request).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n"),
        };
    }
    let shared = Arc::clone(shared);
    // Reading the kernel's maps may take its time, and this thread accepts the callers' connections.
    tokio::task::spawn_blocking(move || answer_blocking(&shared, &request))
        .await
        .unwrap_or_else(|_panicked| text(StatusCode::INTERNAL_SERVER_ERROR, "the answer ended in a panic\n"))
}

fn answer_blocking(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method(), request.uri().path());
    if path == kernel::RELEASE {
        return match *method {
            Method::POST => kernel::release(&shared.gateway.shedder, request.uri().query()),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n"),
        };
    }
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/metrics" => metrics(shared, request.headers()),
        "/healthz" => match shared.supervisor.failure() {
            None => text(StatusCode::OK, "ok\n"),
            Some(_) => typed(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{FAILED}\n")),
        },
        "/readyz" => match not_ready(shared) {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => typed(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        "/status" => {
            let body = status::status(&shared.gateway, not_ready(shared).as_deref());
            json(StatusCode::OK, &body)
        }
        kernel::STATUS => json(StatusCode::OK, &kernel::status(&shared.gateway.shedder)),
        _ => {
            text(StatusCode::NOT_FOUND, "here are /metrics, /healthz, /readyz, /status, /usage and /kernel\n")
        }
    }
}

/// Why no calls should be sent here; the listener and a configuration are there since before this side answers.
fn not_ready(shared: &Shared) -> Option<String> {
    if shared.supervisor.failure().is_some() {
        return Some(FAILED.to_owned());
    }
    if shared.gateway.is_leaving() {
        return Some("shutting down".to_owned());
    }
    let gateway = &shared.gateway;
    (!gateway.has_identity()).then(|| format!("no identity token yet: {}", status::identity_problem(gateway)))
}

fn metrics(shared: &Shared, headers: &HeaderMap) -> Response<Full<Bytes>> {
    match exposition::write(headers, &shared.registry) {
        Ok((content_type, body)) => typed(StatusCode::OK, content_type, body),
        Err(status) => text(status, "the metrics cannot be written\n"),
    }
}

/// What was used: `?since=7d&by=tenant,deployment,model&tenant=NAME`, all of it optional.
async fn usage(shared: &Shared, query: &str) -> Response<Full<Bytes>> {
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return typed(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
    };
    let gateway = &shared.gateway;
    let report = if let Some(fleet) = &gateway.fleet {
        fleet.usage(gateway, &query).await.map_err(|error| error.to_string())
    } else if let Some(store) = &gateway.store {
        store.usage(query, gateway.clock.now()).await.map_err(|error| error.to_string())
    } else {
        return text(StatusCode::NOT_FOUND, "there is no store\n");
    };
    match report {
        Ok(report) => typed(StatusCode::OK, "application/json", format!("{:#}\n", report.to_json())),
        Err(error) => typed(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n")),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    typed(status, "application/json", format!("{body:#}\n"))
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_host_is_here() {
        let here = |peer: &str, local: &str| {
            let address = |text: &str| Ok(SocketAddr::new(text.parse().unwrap(), 1));
            is_from_here(address(peer), address(local))
        };
        assert!(here("127.0.0.1", "127.0.0.1") && here("::1", "::1"));
        assert!(here("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
        assert!(here("10.0.0.5", "10.0.0.5") && here("::ffff:10.0.0.5", "10.0.0.5"));
        assert!(!here("10.0.0.6", "10.0.0.5") && !here("2001:db8::1", "2001:db8::2"));
        assert!(!is_from_here(Err(io::ErrorKind::NotConnected.into()), Ok(([127, 0, 0, 1], 1).into())));
    }
}
