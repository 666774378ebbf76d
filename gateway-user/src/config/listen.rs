//! `[listen]`, `[admin]`, `[errors]` and `[log]`: where the gateway is reached and how it speaks.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

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
    /// From the first byte of a request, or the end of the handshake, to the last byte of its headers.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a call.
    pub idle_timeout: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// How long open calls may run on after a shutdown signal.
    pub drain_timeout: Duration,
    /// The most connections open at once; more wait in the kernel's accept queue.
    pub max_connections: NonZeroUsize,
    /// The number of threads that serve; the available cores where it is not given.
    pub workers: Option<NonZeroUsize>,
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
