//! The identity endpoints: App Service (`/msi/token`), instance metadata (`/metadata/identity/oauth2/token`) and Entra
//! (`/{tenant}/oauth2/v2.0/token`), and the tokens that they issued.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::answer::unix_time;

/// The secret that the App Service endpoint wants in `X-IDENTITY-HEADER`, and a gateway finds in `IDENTITY_HEADER`.
pub const IDENTITY_HEADER: &str = "simulated-identity-header";
/// The resource that a token must be for.
pub const AUDIENCE: &str = "https://cognitiveservices.azure.com";

/// What goes wrong when a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityFault {
    /// This status, with an error that fits the endpoint.
    Status(StatusCode),
    /// The answer comes this much later.
    Slow(Duration),
    /// The answer never comes.
    Hang,
}

/// Issues tokens and knows them again.
#[derive(Debug)]
pub(crate) struct Identity {
    lifetime: Mutex<Duration>,
    fault: Mutex<Option<IdentityFault>>,
    issued: RwLock<VecDeque<Token>>,
    /// How many were ever issued.
    count: AtomicU64,
    /// How many were ever asked for.
    asked: AtomicU64,
}

#[derive(Debug)]
struct Token {
    text: String,
    audience: String,
    expires: Instant,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint {
    AppService,
    InstanceMetadata,
    Entra,
}

impl Endpoint {
    /// The endpoint that a request is for, or none.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        match (method, path) {
            (&Method::GET, "/msi/token") => Some(Self::AppService),
            (&Method::GET, "/metadata/identity/oauth2/token") => Some(Self::InstanceMetadata),
            (&Method::POST, path) if path.ends_with("/oauth2/v2.0/token") => Some(Self::Entra),
            _ => None,
        }
    }
}

impl Identity {
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime: Mutex::new(lifetime),
            fault: Mutex::default(),
            issued: RwLock::default(),
            count: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        *self.lifetime.lock() = lifetime;
    }

    pub(crate) fn set_fault(&self, fault: Option<IdentityFault>) {
        *self.fault.lock() = fault;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        self.issued.read().iter().map(|token| token.text.clone()).collect()
    }

    /// Forgets every token, as if an administrator had withdrawn them.
    pub(crate) fn revoke(&self) {
        self.issued.write().clear();
    }

    /// A token of the current lifetime, for tests that call without a gateway.
    pub(crate) fn issue(&self, audience: &str) -> (String, Duration) {
        let lifetime = *self.lifetime.lock();
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let claims = json!({
            "aud": audience,
            "exp": (unix_time() + lifetime).as_secs(),
            "iss": "https://sts.windows.net/simulated/",
            "jti": number,
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let signature = format!("{:032x}", unix_time().as_nanos());
        let text = format!(
            "{header}.{}.{}",
            URL_SAFE_NO_PAD.encode(claims.to_string()),
            URL_SAFE_NO_PAD.encode(signature)
        );
        let mut issued = self.issued.write();
        issued.push_back(Token {
            text: text.clone(),
            audience: audience.trim_end_matches('/').to_owned(),
            expires: Instant::now() + lifetime,
        });
        if issued.len() > MAX_TOKENS {
            issued.pop_front();
        }
        (text, lifetime)
    }

    /// Whether a request carries a token that was issued here, for Azure OpenAI, and is not over.
    pub(crate) fn knows(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(text) = value.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        // The newest is the one in use.
        self.issued
            .read()
            .iter()
            .rev()
            .any(|token| token.text == text && token.audience == AUDIENCE && token.expires > Instant::now())
    }

    /// Answers a request for a token.
    pub(crate) async fn answer(&self, endpoint: Endpoint, parts: &Parts, body: &[u8]) -> Response<Bytes> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock();
        match fault {
            Some(IdentityFault::Status(status)) => return refused(status, endpoint, "simulated failure"),
            Some(IdentityFault::Slow(delay)) => tokio::time::sleep(delay).await,
            Some(IdentityFault::Hang) => std::future::pending().await,
            None => {}
        }
        match endpoint {
            Endpoint::AppService | Endpoint::InstanceMetadata => self.managed(endpoint, parts),
            Endpoint::Entra => self.entra(body),
        }
    }

    fn managed(&self, endpoint: Endpoint, parts: &Parts) -> Response<Bytes> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let query = |name: &str| value_of(parts.uri.query().unwrap_or_default().as_bytes(), name);
        match endpoint {
            Endpoint::AppService if header("x-identity-header") != Some(IDENTITY_HEADER) => {
                return refused(StatusCode::FORBIDDEN, endpoint, "wrong or missing X-IDENTITY-HEADER");
            }
            Endpoint::InstanceMetadata if header("metadata") != Some("true") => {
                return refused(StatusCode::BAD_REQUEST, endpoint, "Required metadata header not specified");
            }
            Endpoint::AppService | Endpoint::InstanceMetadata | Endpoint::Entra => {}
        }
        let (Some(_), Some(resource)) = (query("api-version"), query("resource")) else {
            return refused(StatusCode::BAD_REQUEST, endpoint, "api-version and resource are required");
        };
        let (token, lifetime) = self.issue(&resource);
        let now = unix_time().as_secs();
        // The numbers are strings.
        let mut answer = json!({
            "access_token": token,
            "client_id": query("client_id").unwrap_or_else(|| "00000000-0000-0000-0000-000000000001".to_owned()),
            "expires_on": (now + lifetime.as_secs()).to_string(),
            "resource": resource,
            "token_type": "Bearer",
        });
        if matches!(endpoint, Endpoint::InstanceMetadata) {
            answer["expires_in"] = lifetime.as_secs().to_string().into();
            answer["ext_expires_in"] = lifetime.as_secs().to_string().into();
            answer["not_before"] = now.to_string().into();
        }
        response(StatusCode::OK, &answer)
    }

    fn entra(&self, body: &[u8]) -> Response<Bytes> {
        let field = |name: &str| value_of(body, name).filter(|value| !value.is_empty());
        let granted = field("grant_type").as_deref() == Some("client_credentials")
            && field("client_assertion_type").as_deref() == Some(ASSERTION_TYPE)
            && field("client_assertion").is_some()
            && field("client_id").is_some();
        let (true, Some(scope)) = (granted, field("scope")) else {
            return refused(
                StatusCode::BAD_REQUEST,
                Endpoint::Entra,
                "the request is not a client assertion",
            );
        };
        let (token, lifetime) = self.issue(scope.strip_suffix("/.default").unwrap_or(&scope));
        let answer = json!({
            "access_token": token,
            "expires_in": lifetime.as_secs(),
            "ext_expires_in": lifetime.as_secs(),
            "token_type": "Bearer",
        });
        response(StatusCode::OK, &answer)
    }
}

fn value_of(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn refused(status: StatusCode, endpoint: Endpoint, problem: &str) -> Response<Bytes> {
    let body = match endpoint {
        Endpoint::AppService => json!({"statusCode": status.as_u16(), "message": problem}),
        Endpoint::InstanceMetadata => json!({"error": "invalid_request", "error_description": problem}),
        Endpoint::Entra => json!({
            "error": "invalid_client",
            "error_codes": [700_016],
            "error_description": format!("AADSTS700016: {problem}"),
        }),
    };
    response(status, &body)
}

fn response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Tokens known at a time; the oldest is forgotten.
const MAX_TOKENS: usize = 1024;
