//! What browsers are told (Fetch Standard, "CORS protocol"): which pages may call, and which headers they may send and see.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::config::CorsOrigins;

/// What one request's answer tells a browser.
#[derive(Debug, Default)]
pub(super) struct Cors {
    /// The value of `Access-Control-Allow-Origin`; none where the page may not call, or it is no page's request.
    allowed: Option<HeaderValue>,
    /// Whether another page would be told otherwise.
    varies: bool,
}

/// What a page may call with. `OPTIONS` is the preflight itself.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// Two hours, the longest that Chromium remembers a preflight for.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// What a page may see of an answer besides its type and length.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-gateway-request-id, x-request-id, apim-request-id, x-ratelimit-remaining, x-tokens-remaining, \
     x-tokens-consumed, x-quota-reason, retry-after, retry-after-ms",
);
/// Headers that a page may send.
const SENT: [&str; 8] = [
    "accept",
    "accept-language",
    "api-key",
    "authorization",
    "content-type",
    "ocp-apim-subscription-key",
    "traceparent",
    "user-agent",
];
/// What else its headers' names may begin with: those of the SDKs.
const SENT_PREFIXES: [&str; 3] = ["x-ms-", "x-stainless-", "openai-"];

impl Cors {
    /// What there is to tell for a request with these headers.
    pub(super) fn of(origins: &CorsOrigins, headers: &HeaderMap) -> Self {
        match (origins, headers.get(ORIGIN)) {
            (CorsOrigins::None, _) => Self::default(),
            (CorsOrigins::Any, origin) => {
                Self { allowed: origin.map(|_| HeaderValue::from_static("*")), varies: false }
            }
            (CorsOrigins::These(origins), origin) => {
                Self { allowed: origin.filter(|origin| origins.contains(origin)).cloned(), varies: true }
            }
        }
    }

    /// The headers of the answer to a preflight, where the request is one and its page may call.
    pub(super) fn preflight(&self, parts: &Parts) -> Option<HeaderMap> {
        let asks =
            parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed.is_none() {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(names) = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(allowed_headers) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        Some(headers)
    }

    /// Adds to an answer what a browser needs to let its page see it.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if self.varies {
            // Beside what upstream's answer varies by.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(allowed) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Of the headers that a page wants to send, those that it may. They are named one by one: `*` would not mean
/// `authorization`, and there are no wildcards within a name.
fn allowed_headers(wanted: &HeaderValue) -> Option<HeaderValue> {
    let wanted = wanted.to_str().ok()?.to_ascii_lowercase();
    let may_be_sent =
        |name: &&str| SENT.contains(name) || SENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let names: Vec<_> = wanted.split(',').map(str::trim).filter(may_be_sent).collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PAGE: HeaderValue = HeaderValue::from_static("https://app.example.com");

    fn told(origins: &CorsOrigins, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        let mut answer = HeaderMap::new();
        Cors::of(origins, &headers).tell(&mut answer);
        answer
    }

    #[test]
    fn only_the_pages_named_are_let_in() {
        let these = CorsOrigins::These(vec![PAGE]);
        let let_in = told(&these, Some("https://app.example.com"));
        assert_eq!(let_in[ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert_eq!(let_in[VARY], "origin");
        for other in
            [None, Some("https://app.example.com.evil.net"), Some("http://app.example.com"), Some("null")]
        {
            let answer = told(&these, other);
            assert_eq!(answer.get(ACCESS_CONTROL_ALLOW_ORIGIN), None, "{other:?}");
            assert_eq!(answer[VARY], "origin", "a cache must not keep it for the page that may call");
        }
        let any = told(&CorsOrigins::Any, Some("https://anywhere.example"));
        assert_eq!(
            (&any[ACCESS_CONTROL_ALLOW_ORIGIN], any.get(VARY)),
            (&HeaderValue::from_static("*"), None)
        );
        assert!(told(&CorsOrigins::None, Some("https://app.example.com")).is_empty());
    }

    #[test]
    fn a_preflight_is_told_the_headers_that_it_may_send() {
        let request = |method: &str| {
            let request = Request::builder()
                .method(method)
                .header(ORIGIN, PAGE)
                .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
                .header(
                    ACCESS_CONTROL_REQUEST_HEADERS,
                    "Authorization,content-type, x-stainless-os,x-evil, cookie",
                );
            request.body(()).unwrap().into_parts().0
        };
        let preflight = |origins: &CorsOrigins, method: &str| {
            let parts = request(method);
            Cors::of(origins, &parts.headers).preflight(&parts)
        };
        let headers = preflight(&CorsOrigins::Any, "OPTIONS").unwrap();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, content-type, x-stainless-os");
        assert!(preflight(&CorsOrigins::Any, "POST").is_none(), "a call");
        assert!(preflight(&CorsOrigins::None, "OPTIONS").is_none());
    }
}
