//! One HTTP connection, over TLS or plain, that gives answers whole or chunk by chunk with the time each came.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::in_time;
use super::raw::RawConnection;
use crate::certificate::Authority;

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

impl Protocol {
    /// What ALPN calls it.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// One connection; dropping it closes it.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: HeaderMap,
}

/// An answer that is still coming; dropping it hangs up on HTTP/1.1, and resets the stream on HTTP/2.
#[derive(Debug)]
pub struct Streaming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// What came after the body; empty before its end.
    pub trailers: HeaderMap,
    body: Incoming,
}

/// Part of a body.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// When it came.
    pub at: Instant,
    /// What came.
    pub bytes: Bytes,
}

impl Client {
    /// Connects over TLS.
    ///
    /// # Errors
    /// When that fails, or the server does not speak the protocol.
    pub async fn connect(
        address: SocketAddr,
        authority: &Authority,
        protocol: Protocol,
    ) -> anyhow::Result<Self> {
        let raw = RawConnection::connect(address, authority, &[protocol.name()]).await?;
        Self::over_tls(raw, address, protocol).await
    }

    /// The same from one of this host's addresses, such as 127.0.0.2.
    ///
    /// # Errors
    /// When that fails, or the server does not speak the protocol.
    pub async fn connect_from(
        source: IpAddr,
        address: SocketAddr,
        authority: &Authority,
        protocol: Protocol,
    ) -> anyhow::Result<Self> {
        let raw = RawConnection::connect_from(source, address, authority, &[protocol.name()]).await?;
        Self::over_tls(raw, address, protocol).await
    }

    async fn over_tls(raw: RawConnection, address: SocketAddr, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = raw.into_inner();
        let chosen = stream.get_ref().1.alpn_protocol();
        anyhow::ensure!(chosen == Some(protocol.name()), "ALPN chose {chosen:?}");
        Self::over(stream, address, protocol).await
    }

    /// Connects without TLS, for HTTP/1.1.
    ///
    /// # Errors
    /// When that fails.
    pub async fn plain(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = in_time("connecting", TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Self::over(stream, address, Protocol::Http1).await
    }

    async fn over<S>(stream: S, address: SocketAddr, protocol: Protocol) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        // The connections' tasks end with their senders; what they fail with, the senders fail with too.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = in_time("the HTTP/1.1 handshake", http1::handshake(io)).await??;
                tokio::spawn(async { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                // h2 gives up a connection on which small frames wait to be read, the sooner the smaller its window is. A
                // stream that upstream cuts into single bytes is thousands of them.
                builder.initial_connection_window_size(CONNECTION_WINDOW);
                let handshake = builder.handshake(io);
                let (sender, connection) = in_time("the HTTP/2 handshake", handshake).await??;
                tokio::spawn(async { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Self { address, sender })
    }

    /// Another handle on the same HTTP/2 connection, for calls at the same time; none on HTTP/1.1.
    #[must_use]
    pub fn another(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { address: self.address, sender: Sender::Http2(sender.clone()) })
            }
        }
    }

    /// Makes a call and reads the whole answer.
    ///
    /// # Errors
    /// When the answer does not come to its end in time.
    pub async fn send(&mut self, request: Request<Bytes>) -> anyhow::Result<Reply> {
        // Boxed, so that a test's future holds no copy of it for each call.
        let mut streaming = Box::pin(self.stream(request)).await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = streaming.next().await? {
            body.extend_from_slice(&chunk.bytes);
        }
        let Streaming { status, headers, trailers, body: _ } = streaming;
        Ok(Reply { status, headers, body: body.freeze(), trailers })
    }

    /// Makes a call and reads the answer's head.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn stream(&mut self, request: Request<Bytes>) -> anyhow::Result<Streaming> {
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let request = |parts| Request::from_parts(parts, Full::new(body));
        let response: Response<Incoming> = match &mut self.sender {
            Sender::Http1(sender) => {
                parts.uri = target.parse()?;
                if !parts.headers.contains_key(HOST) {
                    parts.headers.insert(HOST, HeaderValue::from_str(&self.address.to_string())?);
                }
                in_time("the connection", sender.ready()).await??;
                in_time("the response head", sender.send_request(request(parts))).await??
            }
            Sender::Http2(sender) => {
                parts.uri = Uri::builder()
                    .scheme("https")
                    .authority(self.address.to_string())
                    .path_and_query(target)
                    .build()?;
                in_time("the connection", sender.ready()).await??;
                in_time("the response head", sender.send_request(request(parts))).await??
            }
        };
        let (parts, body) = response.into_parts();
        Ok(Streaming { status: parts.status, headers: parts.headers, trailers: HeaderMap::new(), body })
    }
}

impl Reply {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&self) -> anyhow::Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {:?}", self.status, self.body))
    }

    /// The reason that the gateway gives for a refusal, in either format.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let error = body.pointer("/error/code").or_else(|| body.get("error"))?;
        error.as_str().map(str::to_owned)
    }
}

impl Streaming {
    /// The next part of the body, or nothing at its end.
    ///
    /// # Errors
    /// When the body breaks off, or nothing comes in time.
    pub async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        while let Some(frame) = in_time("the next chunk", self.body.frame()).await? {
            match frame?.into_data() {
                Ok(bytes) => return Ok(Some(Chunk { at: Instant::now(), bytes })),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(None)
    }

    /// All chunks until the end.
    ///
    /// # Errors
    /// When the body breaks off, or nothing comes in time.
    pub async fn rest(&mut self) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next().await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// The text until the end.
    ///
    /// # Errors
    /// When the body breaks off, nothing comes in time, or it is no text.
    pub async fn rest_text(&mut self) -> anyhow::Result<String> {
        let bytes: Vec<u8> = self.rest().await?.into_iter().flat_map(|chunk| chunk.bytes).collect();
        Ok(String::from_utf8(bytes)?)
    }
}

/// Far more than any test receives.
const CONNECTION_WINDOW: u32 = 64 << 20;
