//! One connection of the load generator, to the proxy over TLS or to the upstream in clear, and calls over it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::load::LoadError;
use crate::load::agent;
use crate::load::arrival::Socket;
use crate::load::http::{self, Body, Head, HttpError};

/// Where calls go, and how.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, tls } = self;
        formatter.debug_struct("Target").field("address", address).field("tls", &tls.is_some()).finish()
    }
}

impl Target {
    /// The upstream itself, in clear.
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A proxy, over TLS 1.3 with X25519 and without resumption, so that every proxy does the same handshake.
    ///
    /// # Errors
    ///
    /// [`LoadError::Tls`] when the crypto provider cannot do TLS 1.3.
    pub fn tls(address: SocketAddr) -> Result<Self, LoadError> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { address, tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// The address that is called.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection, handshake included.
    ///
    /// # Errors
    ///
    /// [`LoadError::Connect`] or [`LoadError::Handshake`].
    pub async fn connect(&self) -> Result<Connection, LoadError> {
        let address = self.address;
        let stream =
            TcpStream::connect(address).await.map_err(|source| LoadError::Connect { address, source })?;
        let stream = Socket::new(stream)?;
        let Some(tls) = &self.tls else { return Ok(Connection::new(Transport::Plain(stream))) };
        let stream = tls
            .connect(ServerName::IpAddress(address.ip().into()), stream)
            .await
            .map_err(|source| LoadError::Handshake { address, source })?;
        Ok(Connection::new(Transport::Tls(Box::new(stream))))
    }
}

/// Accepts any certificate: the proxy is on loopback and verifying would cost the load's core as much as signing
/// costs the proxy's.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// An open connection that carries one call at a time.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    buffer: Box<[u8; BUFFER]>,
}

impl Connection {
    fn new(transport: Transport) -> Self {
        Self { transport, buffer: Box::new([0; BUFFER]) }
    }

    /// Sends `request` and reads the answer to its end; the body's bytes go to `sink` as they come, with the time at
    /// which the last of them arrived, in nanoseconds of the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`] when the status is not 200, else what broke.
    pub async fn call(&mut self, request: &[u8], mut sink: impl FnMut(&[u8], u64)) -> Result<(), LoadError> {
        self.transport.write_all(request).await?;
        let mut filled = 0;
        let mut head = loop {
            filled += self.read(filled).await?;
            if let Some(head) = Head::parse(self.buffer.get(..filled).unwrap_or_default())? {
                break head;
            }
        };
        let status = http::status(self.buffer.as_slice())?;
        let mut refusal = Vec::new();
        let mut range = head.len..filled;
        loop {
            let arrived_ns = self.transport.arrived_ns();
            let mut sink = |bytes: &[u8]| {
                if status == 200 { sink(bytes, arrived_ns) } else { refusal.extend_from_slice(bytes) }
            };
            take(&mut head.body, self.buffer.get(range).unwrap_or_default(), &mut sink)?;
            if head.body.ended() {
                break;
            }
            range = 0..self.read(0).await?;
        }
        if status != 200 {
            refusal.truncate(REFUSAL_SHOWN);
            return Err(LoadError::Refused { status, body: String::from_utf8_lossy(&refusal).into_owned() });
        }
        Ok(())
    }

    /// Says goodbye and drops the connection without leaving its port in `TIME_WAIT`, of which a benchmark of new
    /// connections would run out.
    ///
    /// # Errors
    ///
    /// [`LoadError::Io`] when the connection broke before.
    pub async fn close(mut self) -> Result<(), LoadError> {
        match &mut self.transport {
            Transport::Plain(stream) => stream.set_zero_linger()?,
            Transport::Tls(stream) => {
                let (socket, session) = stream.get_mut();
                socket.set_zero_linger()?;
                session.send_close_notify();
                stream.flush().await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, at: usize) -> Result<usize, LoadError> {
        let read = self.transport.read(self.buffer.get_mut(at..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(LoadError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(read)
    }
}

#[derive(Debug)]
enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Transport {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await?,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    fn arrived_ns(&self) -> u64 {
        match self {
            Self::Plain(socket) => socket.arrived_ns(),
            Self::Tls(stream) => stream.get_ref().0.arrived_ns(),
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LoadError> {
        Ok(match self {
            Self::Plain(stream) => stream.read(buffer).await?,
            Self::Tls(stream) => stream.read(buffer).await?,
        })
    }
}

fn take(body: &mut Body, bytes: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), HttpError> {
    if body.advance(bytes, sink)? == bytes.len() { Ok(()) } else { Err(HttpError::Excess) }
}

/// A request of the benchmark, as it goes on the wire.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    /// A small chat completion with the caller's key, as an OpenAI SDK would send it.
    pub fn small(target: SocketAddr, key: &str) -> Self {
        Self::with_body(target, key, SMALL_BODY)
    }

    /// An agent's chat completion with a body of about so many bytes.
    pub fn agent(target: SocketAddr, key: &str, bytes: usize) -> Self {
        Self::with_body(target, key, &agent::body(bytes))
    }

    /// A chat completion that streams `chunks` chunks, one every `pause_ms` milliseconds; the canned upstream reads
    /// both numbers from the prompt.
    pub fn stream(target: SocketAddr, key: &str, chunks: u64, pause_ms: u64) -> Self {
        let body = format!(
            r#"{{"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Tell me a story. pace={chunks}x{pause_ms}"}}],"max_tokens":{max_tokens},"stream":true}}"#,
            max_tokens = chunks.saturating_mul(20),
        );
        Self::with_body(target, key, &body)
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn with_body(target: SocketAddr, key: &str, body: &str) -> Self {
        Self(
            format!(
                "POST /openai/deployments/chat/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n\
                 host: {target}\r\n\
                 api-key: {key}\r\n\
                 accept: application/json\r\n\
                 content-type: application/json\r\n\
                 user-agent: AzureOpenAI/Python 1.99.0\r\n\
                 content-length: {length}\r\n\r\n{body}",
                length = body.len(),
            )
            .into_bytes(),
        )
    }
}

/// One read; larger than any answer of the upstream's.
const BUFFER: usize = 16 * 1024;
/// Bytes of a refusal's body that are worth showing.
const REFUSAL_SHOWN: usize = 300;
const SMALL_BODY: &str = r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"What is the capital of France? Answer in one word."}],"max_tokens":64,"temperature":0}"#;
