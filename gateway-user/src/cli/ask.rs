//! One request to the admin address of a running gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("no gateway answers at {address} (admin): {source}; is it running?")]
    Connect {
        /// Who was asked.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} (admin) did not answer within {} s", patience.as_secs())]
    Timeout {
        /// Who was asked.
        address: SocketAddr,
        /// For how long was waited.
        patience: Duration,
    },
    /// The exchange broke.
    #[error("{address} (admin) broke off: {source}")]
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
    #[error("the answer of {address} (admin) cannot be read: {problem}")]
    Body {
        /// Who was asked.
        address: SocketAddr,
        /// Why.
        problem: String,
    },
    /// It said no.
    #[error("the gateway at {address} (admin) answered {status}: {message}")]
    Refused {
        /// Who was asked.
        address: SocketAddr,
        /// Its answer's status.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// What it said is no JSON.
    #[error("the answer of {address} (admin) is no gateway's: {source}")]
    Answer {
        /// Who was asked.
        address: SocketAddr,
        /// Why not.
        source: serde_json::Error,
    },
    /// What it said is not what was asked for.
    #[error("what answers at {0} (admin) is no gateway of this version")]
    Foreign(SocketAddr),
    /// No runtime.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A running gateway, asked at its admin address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admin {
    address: SocketAddr,
    patience: Duration,
    most_bytes: usize,
}

impl Admin {
    /// Whoever is at that address. Its answers are at hand and short.
    pub(super) const fn at(address: SocketAddr) -> Self {
        Self { address: reachable(address), patience: Duration::from_secs(10), most_bytes: 1 << 20 }
    }

    /// Waits for answers from a ledger of millions of rows, which take seconds and are long.
    pub(super) const fn patiently(self) -> Self {
        Self { patience: Duration::from_secs(60), most_bytes: 256 << 20, ..self }
    }

    /// What was answered is not what was asked for.
    pub(super) const fn foreign(self) -> AskError {
        AskError::Foreign(self.address)
    }

    /// Reads a page.
    pub(super) fn get(self, target: &str) -> Result<Value, AskError> {
        self.ask(Request::get(target).body(Full::default())?)
    }

    /// Has something done.
    pub(super) fn post(self, target: &str, body: Option<&impl Serialize>) -> Result<Value, AskError> {
        let request = Request::post(target);
        self.ask(match body {
            Some(body) => {
                let body = serde_json::to_vec(body).map_err(io::Error::from)?;
                request.header(CONTENT_TYPE, "application/json").body(Full::from(body))?
            }
            None => request.body(Full::default())?,
        })
    }

    fn ask(self, mut request: Request<Full<Bytes>>) -> Result<Value, AskError> {
        let host = HeaderValue::try_from(self.address.to_string()).map_err(http::Error::from)?;
        request.headers_mut().insert(HOST, host);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let exchange = tokio::time::timeout(self.patience, self.exchange(request));
            let Self { address, patience, .. } = self;
            exchange.await.map_err(|_elapsed| AskError::Timeout { address, patience })?
        })
    }

    #[expect(clippy::disallowed_methods, reason = "within a limit")]
    async fn exchange(self, request: Request<Full<Bytes>>) -> Result<Value, AskError> {
        let address = self.address;
        let http = |source| AskError::Http { address, source };
        let stream =
            TcpStream::connect(address).await.map_err(|source| AskError::Connect { address, source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // What breaks the connection breaks the answer that is waited for.
        tokio::spawn(async { drop(connection.await) });
        let (parts, body) = sender.send_request(request).await.map_err(http)?.into_parts();
        let collected = Limited::new(body, self.most_bytes).collect().await;
        let body =
            collected.map_err(|error| AskError::Body { address, problem: error.to_string() })?.to_bytes();
        if !parts.status.is_success() {
            let message = reason(&body);
            return Err(AskError::Refused { address, status: parts.status, message });
        }
        serde_json::from_slice(&body).map_err(|source| AskError::Answer { address, source })
    }
}

/// Why a gateway said no: its sentence, or where it has none all that it said.
fn reason(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let sentence = value.as_ref().and_then(|value| value.get("error")?.as_str());
    sentence.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
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
