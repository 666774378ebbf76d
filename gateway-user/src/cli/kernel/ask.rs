//! One request to the admin address of a running gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum AskError {
    /// Nobody is there.
    #[error("no gateway answers at {address}, the configuration's admin.address: {source}; is it running?")]
    Connect {
        /// Who was asked.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer within {} s", PATIENCE.as_secs())]
    Timeout {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The exchange broke.
    #[error("{address} broke off: {source}")]
    Http {
        /// Who was asked.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The question cannot be written.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The answer does not come to its end, or is longer than any of a gateway's.
    #[error("the answer of {address} cannot be read: {problem}")]
    Body {
        /// Who was asked.
        address: SocketAddr,
        /// Why.
        problem: String,
    },
    /// It said no.
    #[error("{address} answered {status}: {message}")]
    Refused {
        /// Who was asked.
        address: SocketAddr,
        /// Its answer's status.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// What it said is not understood.
    #[error("the answer of {address} is no gateway's of this version: {source}")]
    Answer {
        /// Who was asked.
        address: SocketAddr,
        /// Why not.
        source: serde_json::Error,
    },
    /// No runtime.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// For everything; the answer is at hand.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer.
const MOST_BYTES: usize = 1 << 20;

/// Reads a page.
pub(super) fn get(address: SocketAddr, target: &str) -> Result<Value, AskError> {
    ask(address, Method::GET, target)
}

/// Has something done.
pub(super) fn post(address: SocketAddr, target: &str) -> Result<Value, AskError> {
    ask(address, Method::POST, target)
}

fn ask(address: SocketAddr, method: Method, target: &str) -> Result<Value, AskError> {
    let address = reachable(address);
    let request =
        Request::builder().method(method).uri(target).header(HOST, address.to_string()).body(Empty::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let exchange = tokio::time::timeout(PATIENCE, exchange(address, request));
        exchange.await.map_err(|_elapsed| AskError::Timeout { address })?
    })
}

#[expect(clippy::disallowed_methods, reason = "within a limit")]
async fn exchange(address: SocketAddr, request: Request<Empty<Bytes>>) -> Result<Value, AskError> {
    let http = |source| AskError::Http { address, source };
    let stream = TcpStream::connect(address).await.map_err(|source| AskError::Connect { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // What breaks the connection breaks the answer that is waited for.
    tokio::spawn(async { drop(connection.await) });
    let (parts, body) = sender.send_request(request).await.map_err(http)?.into_parts();
    let collected = Limited::new(body, MOST_BYTES).collect().await;
    let body = collected.map_err(|error| AskError::Body { address, problem: error.to_string() })?.to_bytes();
    if !parts.status.is_success() {
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(AskError::Refused { address, status: parts.status, message });
    }
    serde_json::from_slice(&body).map_err(|source| AskError::Answer { address, source })
}

/// Where a listener on every address is reached from its own host.
const fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
