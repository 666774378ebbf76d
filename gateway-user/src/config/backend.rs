//! `[identity]` and `[[backends]]`: the Azure OpenAI resources behind the gateway and how it signs in to them.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use http::uri::{Authority, Scheme, Uri};

use crate::names::BackendName;

/// `[identity]`: how the gateway signs in to Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where its tokens come from.
    pub source: IdentitySource,
    /// The client ID of a user-assigned identity, where the system-assigned one is not meant.
    pub client_id: Option<String>,
}

/// Where identity tokens come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdentitySource {
    /// Workload identity where its variables are set, else the managed identity.
    #[default]
    Auto,
    /// The managed identity of the virtual machine or the App Service.
    Managed,
    /// The federated token of a Kubernetes service account.
    Workload,
    /// The person signed in with `az login`.
    Cli,
    /// No identity at all: every backend is on loopback.
    None,
}

/// One of `[[backends]]`: an Azure OpenAI resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// What logs and metrics call it.
    pub name: BackendName,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What its identity tokens are asked for.
    pub scope: String,
    /// Lower numbers first; a higher one is used only when all lower ones are out.
    pub priority: u32,
    /// Its share among those of equal priority.
    pub weight: NonZeroU32,
    /// From the last byte of the request to the first byte of the response.
    pub timeout: Duration,
    /// Between one chunk of a stream and the next.
    pub stream_idle_timeout: Duration,
    /// From the first packet to the end of the TLS handshake.
    pub connect_timeout: Duration,
}

/// An address to forward to: `https://host[:port][/base]`, in plain HTTP only on loopback.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    authority: Authority,
    port: NonZeroU16,
    base_path: String,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("is not a URL such as \"https://name.openai.azure.com\"")]
    Syntax,
    /// Neither `https` nor `http`.
    #[error("must start with https://, found {0}")]
    Scheme(String),
    /// Plain HTTP to somewhere else than this host.
    #[error("may use http:// only for a loopback host, and {0:?} is not one; use https://")]
    Plaintext(String),
    /// A user name or a password before the host.
    #[error("may not carry credentials")]
    Credentials,
    /// Something after `?` or `#`.
    #[error("may not carry a query or a fragment")]
    Query,
    /// Port 0.
    #[error("may not name port 0")]
    Port,
}

impl Endpoint {
    /// Parses and checks an address.
    ///
    /// # Errors
    /// When it is no URL, names another scheme, is in plain HTTP to another host, or carries credentials or a query.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError::Query);
        }
        let uri: Uri = text.parse().map_err(|_syntax: http::uri::InvalidUri| EndpointError::Syntax)?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(EndpointError::Syntax);
        };
        let tls = match scheme {
            https if https == Scheme::HTTPS => true,
            http if http == Scheme::HTTP => false,
            other => return Err(EndpointError::Scheme(other.to_string())),
        };
        if authority.as_str().contains('@') {
            return Err(EndpointError::Credentials);
        }
        if !tls && !is_loopback(authority.host()) {
            return Err(EndpointError::Plaintext(authority.host().to_owned()));
        }
        // A port that is no number leaves `Authority` without one; its text then still holds a colon after the host.
        let port = match authority.port() {
            Some(port) => NonZeroU16::new(port.as_u16()).ok_or(EndpointError::Port)?,
            None if authority.as_str().len() > authority.host().len() => return Err(EndpointError::Syntax),
            None if tls => HTTPS_PORT,
            None => HTTP_PORT,
        };
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) {
            return Err(EndpointError::Query);
        }
        let base_path = path.map_or("", |path| path.path()).trim_end_matches('/').to_owned();
        Ok(Self { tls, authority, port, base_path })
    }

    /// Whether connections to it are encrypted.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The scheme of a request to it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// The host and, where it was given, the port: the `Host` header or `:authority` of a request to it.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host to resolve and to verify the certificate for: a name or an address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        unbracketed(self.authority.host())
    }

    /// The port to connect to, the scheme's own where none was given.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.get()
    }

    /// What comes before a forwarded request's path: empty, or `/…` without a slash at its end.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// Whether it is on this host.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.authority.host())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, base_path, .. } = self;
        write!(f, "{}://{authority}{base_path}", self.scheme())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const HTTPS_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();
const HTTP_PORT: NonZeroU16 = NonZeroU16::new(80).unwrap();

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `localhost` counts: RFC 6761, 6.3 reserves the name for loopback addresses.
fn is_loopback(host: &str) -> bool {
    let host = unbracketed(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback())
}
