//! `[listen]`, `[admin]`, `[errors]` and `[log]`: where the gateway is reached and how it speaks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use toml::de::DeValue;
use tracing::level_filters::LevelFilter;

use super::document::{Reported, Section};
use super::error::Problem;
use super::value;

/// `[listen]`: where callers connect, and what one connection may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address and port that serve TLS.
    pub address: SocketAddr,
    /// The PEM file with the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The PEM file with the leaf's private key.
    pub private_key: PathBuf,
    /// The PEM file with the authorities whose client certificates are required; none are asked for without it.
    pub client_ca: Option<PathBuf>,
    /// The peers whose PROXY header (versions 1 and 2) is believed and required.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The longest request body taken.
    pub max_body_bytes: usize,
    /// The most bytes of request bodies and held answers in memory at once, of all tenants together.
    pub max_buffered_bytes: usize,
    /// The origins whose pages may call from a browser.
    pub cors_origins: CorsOrigins,
    /// The least rate at which a request body has to come, on the whole; `header_timeout` is allowed beyond that.
    pub min_body_bytes_per_second: NonZeroU32,
    /// From the first byte of a request, or the end of the handshake, to the last byte of its headers; and the longest
    /// pause in a body.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a call.
    pub idle_timeout: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// How long connections are accepted after a shutdown signal, while `/readyz` says no already.
    pub lame_duck: Duration,
    /// How long open calls may run on once no connections are accepted any more.
    pub drain_timeout: Duration,
    /// The most connections open at once; more wait in the kernel's accept queue.
    pub max_connections: NonZeroUsize,
    /// The number of threads that serve; the available cores where it is not given.
    pub workers: Option<NonZeroUsize>,
}

/// The origins whose pages may call from a browser (Fetch Standard, "CORS protocol").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// None: the gateway says nothing about origins.
    #[default]
    None,
    /// These, each as browsers write it in `Origin`.
    These(Vec<HeaderValue>),
    /// Every one.
    Any,
}

/// `[admin]`: where operators and probes connect, in plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The address and port of `/metrics`, `/healthz`, `/readyz` and `/status`.
    pub address: SocketAddr,
}

/// `[errors]`: the shape of a refusal's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    /// One object, whose `error` is the reason.
    #[default]
    Flat,
    /// The shape that OpenAI's own errors have, whose `error` is an object.
    OpenAi,
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// The least severe events written.
    pub level: LevelFilter,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Listen {
    pub(super) fn read(section: &mut Section<'_>, folder: &Path) -> Result<Self, Reported> {
        let certificate = section.required("certificate", value::path);
        let private_key = section.required("private_key", value::path);
        let max_body_bytes =
            section.or("max_body_bytes", DEFAULT_MAX_BODY_BYTES, value::count_of(MOST_BODY_BYTES)).get();
        let listen = Self {
            address: section.or("address", DEFAULT_ADDRESS, value::address),
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            client_ca: section.optional("client_ca", value::path).map(|path| folder.join(path)),
            proxy_protocol_from: section.list("proxy_protocol_from", value::network).unwrap_or_default(),
            max_body_bytes,
            max_buffered_bytes: section.or(
                "max_buffered_bytes",
                least_buffered(max_body_bytes).max(DEFAULT_MAX_BUFFERED_BYTES),
                buffered(max_body_bytes),
            ),
            cors_origins: section.list("cors_origins", origin).map(CorsOrigins::of).unwrap_or_default(),
            min_body_bytes_per_second: section.or(
                "min_body_bytes_per_second",
                DEFAULT_MIN_BODY_BYTES_PER_SECOND,
                value::count32,
            ),
            header_timeout: section.or("header_timeout", DEFAULT_HEADER_TIMEOUT, value::duration),
            idle_timeout: section.or("idle_timeout", DEFAULT_IDLE_TIMEOUT, value::duration),
            handshake_timeout: section.or("handshake_timeout", DEFAULT_HANDSHAKE_TIMEOUT, value::duration),
            lame_duck: section.or("lame_duck", DEFAULT_LAME_DUCK, value::duration_or_zero),
            drain_timeout: section.or("drain_timeout", DEFAULT_DRAIN_TIMEOUT, value::duration),
            max_connections: section.or(
                "max_connections",
                DEFAULT_MAX_CONNECTIONS,
                value::count_of(MOST_CONNECTIONS),
            ),
            workers: section.optional("workers", value::count_of(MOST_WORKERS)),
        };
        Ok(Self { certificate: folder.join(certificate?), private_key: folder.join(private_key?), ..listen })
    }
}

impl CorsOrigins {
    fn of(origins: Vec<Option<HeaderValue>>) -> Self {
        if origins.is_empty() {
            return Self::None;
        }
        origins.into_iter().collect::<Option<_>>().map_or(Self::Any, Self::These)
    }
}

/// An origin, as browsers write it; nothing for `"*"`.
fn origin(value: &DeValue<'_>) -> Result<Option<HeaderValue>, Problem> {
    let text = value::text(value)?;
    if text == "*" {
        return Ok(None);
    }
    let wrong = || Problem::Origin(text.to_owned());
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let is_of_host =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let is_of_scheme = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
    if scheme.is_empty()
        || host.is_empty()
        || !scheme.bytes().all(is_of_scheme)
        || !host.bytes().all(is_of_host)
    {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map(Some).map_err(|_not_visible| wrong())
}

/// A number of bytes in which a body of the longest kind has room, though no tenant may use more than it leaves free.
fn buffered(max_body_bytes: usize) -> impl Fn(&DeValue<'_>) -> Result<usize, Problem> {
    move |value| {
        let number = value::whole(value, least_buffered(max_body_bytes) as u64, MOST_BUFFERED_BYTES)?;
        usize::try_from(number).map_err(|_too_large| Problem::Empty)
    }
}

const fn least_buffered(max_body_bytes: usize) -> usize {
    max_body_bytes.saturating_mul(2)
}

impl Admin {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self { address: section.or("address", DEFAULT_ADMIN_ADDRESS, value::address) }
    }
}

impl ErrorFormat {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let formats = value::choice(&[("flat", Self::Flat), ("openai", Self::OpenAi)]);
        section.or("format", Self::default(), formats)
    }
}

impl Log {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let formats =
            value::choice(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let levels = value::choice(&[
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ]);
        Self {
            format: section.or("format", LogFormat::default(), formats),
            level: section.or("level", DEFAULT_LEVEL, levels),
        }
    }
}

/// Every IPv4 address of this host.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);
/// Loopback: what the admin port tells is for this host unless said otherwise.
const DEFAULT_ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// 16 MiB: a long conversation with a few pictures.
const DEFAULT_MAX_BODY_BYTES: NonZeroUsize = NonZeroUsize::new(16 << 20).unwrap();
/// 1 GiB; a body is held in memory while it is checked.
const MOST_BODY_BYTES: u64 = 1 << 30;
/// 256 MiB: eight bodies of the longest kind for one tenant alone.
const DEFAULT_MAX_BUFFERED_BYTES: usize = 256 << 20;
/// 1 TiB.
const MOST_BUFFERED_BYTES: u64 = 1 << 40;
/// 16 KiB: a call from the slowest mobile network comes faster, and a body of 16 MiB may take 17 minutes.
const DEFAULT_MIN_BODY_BYTES_PER_SECOND: NonZeroU32 = NonZeroU32::new(16 << 10).unwrap();
const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the minute after which load balancers commonly close, so that they close first.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// None: Kubernetes takes a pod that ends out of its services by itself.
const DEFAULT_LAME_DUCK: Duration = Duration::ZERO;
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// What the kernel can have open in one process by default.
const MOST_CONNECTIONS: u64 = 1 << 20;
const MOST_WORKERS: u64 = 1024;
const DEFAULT_LEVEL: LevelFilter = LevelFilter::INFO;
