//! What `cargo xtask bench` measures with: a canned upstream and a load generator that cost far less per call than
//! any proxy between them, so that the proxy is what is measured.
//!
//! Both run on one core while the proxy has the other to itself. Nothing here knows which proxy that is.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::load::http::HttpError;

pub mod agent;
mod arrival;
pub mod calls;
pub mod certificate;
pub mod connection;
pub mod connects;
pub mod http;
pub mod paced;
pub mod process;
pub mod quantiles;
pub mod streams;
pub mod upstream;
pub mod window;

/// What ends a measurement without a number.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The TCP connection could not be opened.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The socket's error.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address}: {source}")]
    Handshake {
        /// With whom.
        address: SocketAddr,
        /// The TLS or socket error.
        source: io::Error,
    },
    /// An open connection broke, or was closed in the middle of an answer.
    #[error("connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came back is not the HTTP/1.1 that was expected.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The call was answered, but not with 200.
    #[error("answered {status}: {body}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// The stream ended without `data: [DONE]` or without the chunks that were asked for.
    #[error("stream ended after {chunks} of {expected} chunks")]
    StreamIncomplete {
        /// Chunks that came.
        chunks: u64,
        /// Chunks that were asked for.
        expected: u64,
    },
    /// Nothing was measured: the time was too short or every call was stuck.
    #[error("not a single call finished while measuring")]
    NoSamples,
    /// `/proc` did not say what was asked.
    #[error("cannot read {path}: {source}")]
    Proc {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The certificate of the benchmark could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS client could not be configured.
    #[error("TLS client: {0}")]
    Tls(#[from] rustls::Error),
}
