//! Where a backend is: a URL of which only what can be forwarded to is taken.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use http::uri::{Authority, InvalidUri, Scheme, Uri};
use rustls_pki_types::{InvalidDnsNameError, ServerName};

/// An address to forward to: `https://host[:port][/base]`, in plain HTTP only on loopback.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    authority: Authority,
    server_name: ServerName<'static>,
    port: NonZeroU16,
    base_path: String,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("is not a URL of https:// and a host, such as \"https://host.example\"")]
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
    /// A host that no certificate can be for.
    #[error("has a host that is neither a name nor an address: {0:?}")]
    Host(String),
    /// Something after `?` or `#`.
    #[error(
        "may not carry a query or a fragment; of what the portal shows take only the host, as in \"https://host.example\""
    )]
    Query,
    /// Port 0.
    #[error("may not name port 0")]
    Port,
}

impl Endpoint {
    /// Parses and checks an address.
    ///
    /// # Errors
    /// When it is no URL of a host that can have a certificate, names another scheme, is in plain HTTP to another host, or
    /// carries credentials or a query.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError::Query);
        }
        let uri: Uri = text.parse().map_err(|_syntax: InvalidUri| EndpointError::Syntax)?;
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
        let host = unbracketed(authority.host());
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_invalid: InvalidDnsNameError| EndpointError::Host(host.to_owned()))?;
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) {
            return Err(EndpointError::Query);
        }
        let base_path = path.map_or("", |path| path.path()).trim_end_matches('/').to_owned();
        Ok(Self { tls, authority, server_name, port, base_path })
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

    /// The host to verify the certificate for.
    #[must_use]
    pub const fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// The host to resolve: a name or an address, without brackets.
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

    /// The address without a path that the callers of Azure OpenAI bring along, as in what the portal shows:
    /// `/openai/deployments/…`, `/openai/v1` or `/api/projects/…`. `None` where it has no such path.
    #[must_use]
    pub fn without_api_path(&self) -> Option<String> {
        let at = API_PATHS.iter().filter_map(|path| segments_at(&self.base_path, path)).min()?;
        Some(format!("{}://{}{}", self.scheme(), self.authority, self.base_path.get(..at)?))
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

/// Where the whole segments `segments` begin in `path`.
fn segments_at(path: &str, segments: &str) -> Option<usize> {
    let ends = |at: usize| {
        path.get(at + segments.len()..).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path.match_indices(segments).map(|(at, _)| at).find(|at| ends(*at))
}

/// What the paths of Azure OpenAI and of Foundry's projects begin with.
const API_PATHS: [&str; 2] = ["/openai", "/api/projects"];
const HTTPS_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();
const HTTP_PORT: NonZeroU16 = NonZeroU16::new(80).unwrap();

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `localhost` counts: RFC 6761, 6.3 reserves the name for loopback addresses.
fn is_loopback(host: &str) -> bool {
    let host = unbracketed(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_knows_what_to_connect_to() {
        let azure = Endpoint::parse("https://x.openai.azure.com").unwrap();
        assert_eq!((azure.host(), azure.port(), azure.tls()), ("x.openai.azure.com", 443, true));
        assert_eq!((azure.authority().as_str(), azure.base_path()), ("x.openai.azure.com", ""));

        let behind = Endpoint::parse("https://proxy.example:8443/aoai/").unwrap();
        assert_eq!((behind.port(), behind.base_path()), (8443, "/aoai"));
        assert_eq!(behind.to_string(), "https://proxy.example:8443/aoai");

        let local = Endpoint::parse("http://[::1]:9000").unwrap();
        assert_eq!((local.host(), local.port(), local.tls()), ("::1", 9000, false));
        assert_eq!(local.authority().as_str(), "[::1]:9000");
        assert_eq!(Endpoint::parse("http://LOCALHOST/").unwrap().port(), 80);
    }

    #[test]
    fn the_path_that_callers_bring_along_is_known() {
        let without = |text: &str| Endpoint::parse(text).unwrap().without_api_path();
        for path in [
            "/openai",
            "/openai/",
            "/openai/v1/",
            "/openai/deployments/chat/chat/completions",
            "/api/projects/p",
        ] {
            let right = without(&format!("https://x.openai.azure.com{path}"));
            assert_eq!(right.as_deref(), Some("https://x.openai.azure.com"), "{path}");
        }
        assert_eq!(
            without("https://apim.example:8443/team/openai/v1").as_deref(),
            Some("https://apim.example:8443/team")
        );
        for base in ["https://x", "https://x/openai-proxy", "https://x/my/openais/y", "https://x/api"] {
            assert_eq!(without(base), None, "{base}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_host() {
        for local in ["http://127.0.0.1:1", "http://127.9.9.9", "http://localhost:5", "http://[::1]"] {
            assert!(Endpoint::parse(local).unwrap().is_loopback(), "{local}");
        }
        for elsewhere in ["http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]", "http://x"] {
            assert!(matches!(Endpoint::parse(elsewhere), Err(EndpointError::Plaintext(_))), "{elsewhere}");
        }
    }

    #[test]
    fn what_cannot_be_forwarded_to_is_refused() {
        let cases = [
            ("", EndpointError::Syntax),
            ("x.openai.azure.com", EndpointError::Syntax),
            ("/openai", EndpointError::Syntax),
            ("https://", EndpointError::Syntax),
            ("https://x:99999", EndpointError::Syntax),
            ("https://x:", EndpointError::Syntax),
            ("https://x:0", EndpointError::Port),
            ("https://me:secret@x", EndpointError::Credentials),
            ("https://x/?a=b", EndpointError::Query),
            ("https://x/#a", EndpointError::Query),
            ("ftp://x", EndpointError::Scheme("ftp".to_owned())),
            ("https://contoso!", EndpointError::Host("contoso!".to_owned())),
            ("https://contoso..azure.com", EndpointError::Host("contoso..azure.com".to_owned())),
        ];
        for (text, error) in cases {
            assert_eq!(Endpoint::parse(text), Err(error), "{text}");
        }
    }
}
