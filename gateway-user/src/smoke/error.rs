//! Why a gateway could not be put to the proof, in words for the person who tries.

use std::io;
use std::time::Duration;

use http::StatusCode;
use rustls::CertificateError;

use crate::config::EndpointError;
use crate::secret::MalformedKey;
use crate::tls::{TlsError, explain};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    /// The URL cannot be called.
    #[error("--url {0}")]
    Url(#[from] EndpointError),
    /// The key cannot be one.
    #[error("the key {0} (`aoai-gateway tenant add NAME` prints a tenant's two keys)")]
    Key(#[from] MalformedKey),
    /// The trusted authorities cannot be read.
    #[error(transparent)]
    Trust(#[from] TlsError),
    /// No connection.
    #[error("{authority}: {}", connecting(source))]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system says.
        source: io::Error,
    },
    /// No TLS on the connection.
    #[error("{authority}: {}", handshaking(source))]
    Tls {
        /// Host and port.
        authority: String,
        /// What the library says.
        source: io::Error,
    },
    /// Plain HTTP to a port that speaks TLS.
    #[error("{authority}: that port speaks TLS; the URL begins with https://")]
    PlainToTls {
        /// Host and port.
        authority: String,
    },
    /// Something took too long.
    #[error("{what} did not come within {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    /// The gateway answers with an error.
    #[error("{}", refused(*status, deployment.as_deref(), message))]
    Refused {
        /// The status.
        status: StatusCode,
        /// What was called.
        deployment: Option<String>,
        /// What the body says.
        message: String,
    },
    /// The tenant may call nothing.
    #[error("the tenant may call no deployment; look at the `deployments` of its tier")]
    NoDeployment,
    /// None of the tenant's deployments answers chat completions.
    #[error(
        "no deployment of {names} answers chat completions; name one with --deployment (the last: {last})"
    )]
    NoChat {
        /// Which were tried.
        names: String,
        /// What the last one said.
        last: Box<Self>,
    },
    /// An answer to a call that is no answer.
    #[error("the answer to the plain call {0}")]
    NotAnAnswer(String),
    /// An answer to a streamed call that is no stream.
    #[error("the answer to the streamed call is no stream of events: {0}")]
    NotAStream(String),
    /// The request cannot be written.
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    /// The result cannot be shown, or nothing can be run.
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn connecting(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there; is the gateway running, and is the port right?"
                .to_owned()
        }
        _ => format!("cannot connect: {source}"),
    }
}

fn handshaking(source: &io::Error) -> String {
    let hint = match explain::of_tls(source) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; trust that authority, or the certificate itself, with --ca FILE"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "; to a port without TLS, on this host, the URL begins with http://"
        }
        _ => "",
    };
    let untrusted = match explain::of_tls(source) {
        Some(rustls::Error::InvalidCertificate(_)) => "the certificate is not trusted: ",
        _ => "no TLS connection: ",
    };
    format!("{untrusted}{}{hint}", explain::connection(source))
}

fn refused(status: StatusCode, deployment: Option<&str>, message: &str) -> String {
    let deployment = deployment.unwrap_or("the list of deployments");
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            "the key is not accepted: it is of no tenant, was replaced, or its tenant is suspended".to_owned()
        }
        StatusCode::FORBIDDEN => format!("the tenant may not call {deployment} now"),
        StatusCode::NOT_FOUND => format!("there is no deployment {deployment} to call"),
        StatusCode::TOO_MANY_REQUESTS => "the tenant is over a limit; come back later".to_owned(),
        _ => format!("{deployment} does not answer"),
    };
    format!("{hint} ({status}: {message})")
}
