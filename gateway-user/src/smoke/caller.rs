//! A caller of the gateway under proof: one HTTP/1.1 connection, as most SDKs use.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::error::SmokeError;
use super::trust::Trust;
use crate::config::Endpoint;
use crate::secret::SubscriptionKey;

/// A connection to a gateway, and the key to call it with.
pub(super) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    endpoint: Endpoint,
    key: HeaderValue,
}

impl Caller {
    /// Connects, and encrypts where the endpoint says so.
    pub(super) async fn connect(
        endpoint: Endpoint,
        key: &SubscriptionKey,
        trust: &Trust,
    ) -> Result<Self, SmokeError> {
        let mut key = HeaderValue::from_str(key.reveal()).map_err(http::Error::from)?;
        key.set_sensitive(true);
        let tcp = connect_tcp(&endpoint).await?;
        let transport = if endpoint.tls() {
            Either::Right(start_tls(&endpoint, trust, tcp).await?)
        } else {
            Either::Left(tcp)
        };
        let (sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        // What breaks the connection breaks the answer that is waited for, and is reported there.
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with its connection, and a broken one is noticed"
        )]
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, endpoint, key })
    }

    /// Sends a request, and gives the head of a good answer and the time when the request left.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Instant), SmokeError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint.base_path()))
            .header(HOST, self.endpoint.authority().as_str())
            .header(USER_AGENT, concat!("aoai-gateway-smoke/", env!("CARGO_PKG_VERSION")))
            .header("api-key", self.key.clone());
        let request = match body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body.to_string())))?,
            None => request.body(Full::default())?,
        };
        in_time("a free connection", ANSWER, self.sender.ready()).await??;
        let sent = Instant::now();
        let response = in_time("the answer", ANSWER, self.sender.send_request(request)).await??;
        if response.status().is_success() {
            return Ok((response, sent));
        }
        let deployment = body.and_then(|body| body.get("model")).and_then(Value::as_str).map(str::to_owned);
        let status = response.status();
        Err(SmokeError::Refused { status, deployment, message: message(status, response).await? })
    }

    /// Sends a request, and reads the whole answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Value>, Instant), SmokeError> {
        let (response, sent) = self.send(method, path, body).await?;
        let (parts, body) = response.into_parts();
        let body = whole(body).await?;
        let json = serde_json::from_slice(&body)
            .map_err(|problem| SmokeError::NotAnAnswer(format!("is no JSON: {problem}")))?;
        Ok((Response::from_parts(parts, json), sent))
    }
}

/// Whether TLS can be spoken there, whoever it is.
pub(super) async fn speaks_tls(endpoint: &Endpoint) -> bool {
    let handshake = async { start_tls(endpoint, &Trust::Anyone, connect_tcp(endpoint).await?).await };
    handshake.await.is_ok()
}

async fn connect_tcp(endpoint: &Endpoint) -> Result<TcpStream, SmokeError> {
    let tcp =
        in_time("a connection", CONNECT, TcpStream::connect((endpoint.host(), endpoint.port()))).await?;
    let tcp =
        tcp.map_err(|source| SmokeError::Connect { authority: endpoint.authority().to_string(), source })?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn start_tls(
    endpoint: &Endpoint,
    trust: &Trust,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, SmokeError> {
    let connector = TlsConnector::from(Arc::new(trust.client_config()?));
    let name = endpoint.server_name().clone();
    in_time("the TLS handshake", CONNECT, connector.connect(name, tcp))
        .await?
        .map_err(|source| SmokeError::Tls { authority: endpoint.authority().to_string(), source })
}

/// Awaits for so long and no longer.
pub(super) async fn in_time<T>(
    what: &'static str,
    after: Duration,
    future: impl Future<Output = T>,
) -> Result<T, SmokeError> {
    tokio::time::timeout(after, future).await.map_err(|_elapsed| SmokeError::Timeout { what, after })
}

#[expect(clippy::disallowed_methods, reason = "within a limit")]
async fn whole(body: Incoming) -> Result<Bytes, SmokeError> {
    match in_time("the rest of the answer", ANSWER, Limited::new(body, MOST_BYTES).collect()).await? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(problem) => Err(SmokeError::NotAnAnswer(format!("does not come to its end: {problem}"))),
    }
}

/// What an error's body says, in any of the shapes that the gateway, Azure and proxies between give it.
async fn message(status: StatusCode, response: Response<Incoming>) -> Result<String, SmokeError> {
    let body = whole(response.into_body()).await?;
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = json.pointer("/message").or_else(|| json.pointer("/error/message")).and_then(Value::as_str);
    let text = text.map(str::to_owned).unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    // It may come from anywhere, and goes to a terminal.
    let short: String = text.trim().chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect();
    Ok(if short.is_empty() {
        status.canonical_reason().unwrap_or("no reason given").to_owned()
    } else {
        short
    })
}

/// For a connection and for its TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// For an answer to begin or to go on; longer than the gateway itself waits for its backends by default.
pub(super) const ANSWER: Duration = Duration::from_secs(150);
/// Of an answer in one piece.
const MOST_BYTES: usize = 1 << 20;
/// Of an error's message.
const MOST_SHOWN: usize = 300;
