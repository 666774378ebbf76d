//! A caller's headers: where its key is found, and which of them go upstream.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, HeaderMap, HeaderName};

use super::query;

/// Headers that hold a key, first found wins.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("ocp-apim-subscription-key"), HeaderName::from_static("api-key")];

/// The key that a caller presents: in `Ocp-Apim-Subscription-Key`, `api-key`, `Authorization: Bearer`, or the query's
/// `subscription-key` or `api-key`; the first of these that is not empty, right or wrong.
#[must_use]
pub fn caller_key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<Cow<'a, [u8]>> {
    for name in KEY_HEADERS {
        let mut values = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii());
        if let Some(key) = values.find(|value| !value.is_empty()) {
            return Some(Cow::Borrowed(key));
        }
    }
    let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    if let Some(key) = bearers.find(|key| !key.is_empty()) {
        return Some(Cow::Borrowed(key));
    }
    match query::key(query?)? {
        Cow::Borrowed(key) => Some(Cow::Borrowed(key.as_bytes())),
        Cow::Owned(key) => Some(Cow::Owned(key.into_bytes())),
    }
}

/// The token of a `Bearer` credential (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether a body is compressed, or otherwise not what it is once decoded: by any of the codings that all `Content-Encoding`
/// fields list (RFC 9110, 8.4).
#[must_use]
pub fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings =
        values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Leaves only the headers that go upstream: those of [`FORWARDED`], SDK telemetry, and those that the operator allows
/// `besides`. What a connection names as its own (RFC 9110, 7.6.1) stays here in any case.
pub fn strip_request(headers: &mut HeaderMap, besides: &[HeaderName]) {
    strip_named(headers);
    let is_known = |name: &str| FORWARDED.contains(&name) || name.starts_with("x-stainless-");
    strip(headers, |name| !is_known(name) && !besides.iter().any(|allowed| allowed == name));
}

/// What goes upstream of a caller's headers, beside the `x-stainless-*` of OpenAI's SDKs: content negotiation, telemetry, and
/// what turns on a preview. Any other may be one that Azure, or a proxy before it, takes for a key, another deployment or
/// another address; `idempotency-key`, were it honoured, would give one tenant's answer to another that guesses it, for all are
/// one account upstream. What frames the body is written anew, and a compressed answer could not be metered.
const FORWARDED: [&str; 15] = [
    "accept",
    "accept-charset",
    "accept-language",
    "content-language",
    "content-type",
    "user-agent",
    // Correlation and telemetry (Azure SDK guidelines; W3C Trace Context; OpenAI API reference, "Debugging requests").
    "x-ms-client-request-id",
    "x-ms-return-client-request-id",
    "x-ms-useragent",
    "x-client-request-id",
    "semantic-kernel-version",
    "traceparent",
    "tracestate",
    // Previews (OpenAI API reference; Azure OpenAI, "API version lifecycle").
    "openai-beta",
    "aoai-evals",
];

/// Removes the headers of a response that speak of the connection it came over (RFC 9110, 7.6.1).
pub fn strip_response(headers: &mut HeaderMap) {
    strip_named(headers);
    strip(headers, is_hop_by_hop);
}

fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| unwanted(name.as_str())).cloned() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removes what `Connection` names besides the usual (RFC 9110, 7.6.1).
fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn key(pairs: &[(&'static str, &str)], query: Option<&str>) -> Option<String> {
        caller_key(&headers(pairs), query).map(|key| String::from_utf8(key.into_owned()).unwrap())
    }

    #[test]
    fn the_first_place_that_holds_a_key_wins() {
        let mut places = vec![
            ("ocp-apim-subscription-key", "one"),
            ("api-key", "two"),
            ("authorization", "bearer  three "),
        ];
        let query = Some("api-key=five&subscription-key=four");
        for expected in ["one", "two", "three", "four"] {
            assert_eq!(key(&places, query).as_deref(), Some(expected));
            if !places.is_empty() {
                places.remove(0);
            }
        }
        assert_eq!(key(&[], Some("api-key=five")).as_deref(), Some("five"));
        assert_eq!(key(&[("authorization", "Basic xyz")], None), None);
        assert_eq!(key(&[], None), None);
    }

    #[test]
    fn an_empty_value_is_no_key() {
        // What an SDK sends whose other way of signing in is not set.
        let both = [("api-key", ""), ("authorization", "Bearer three")];
        assert_eq!(key(&both, None).as_deref(), Some("three"));
        let empty = [("ocp-apim-subscription-key", " "), ("api-key", ""), ("authorization", "Bearer ")];
        assert_eq!(key(&empty, Some("subscription-key=&api-key=five")).as_deref(), Some("five"));
        assert_eq!(key(&empty, Some("api-key=")), None);
        let mut twice = headers(&[("api-key", "")]);
        twice.append("api-key", "two".parse().unwrap());
        assert_eq!(caller_key(&twice, None).as_deref(), Some(&b"two"[..]));
    }

    fn forwarded(given: &[(&'static str, &str)], besides: &[HeaderName]) -> Vec<String> {
        let mut forwarded = headers(given);
        strip_request(&mut forwarded, besides);
        let mut names: Vec<_> = forwarded.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_content_encoding_counts() {
        for (values, encoded) in [
            (&[][..], false),
            (&["identity"], false),
            (&["Identity", ""], false),
            (&["identity, identity"], false),
            (&["gzip"], true),
            (&["identity", "gzip"], true),
            (&["identity,br"], true),
            (&["identity", "identity", "aes128gcm"], true),
        ] {
            let mut given = HeaderMap::new();
            for value in values {
                given.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(is_encoded(&given), encoded, "{values:?}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_stays_here() {
        for name in [
            "authorization",
            "api-key",
            "x-api-key",
            "ocp-apim-subscription-key",
            "ocp-apim-trace",
            "host",
            "cookie",
            "te",
            "accept-encoding",
            "content-encoding",
            "content-length",
            "transfer-encoding",
            "x-forwarded-host",
            "x-ms-spillover-deployment",
            "x-ms-oai-image-generation-deployment",
            "x-ms-anything-new",
            "azureml-model-deployment",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "openai-organization",
            "openai-project",
            "idempotency-key",
            "x-policy-id",
            "x-anything-new",
        ] {
            assert!(forwarded(&[(name, "1")], &[]).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_sdks_send_goes_upstream() {
        for name in FORWARDED.into_iter().chain(["x-stainless-retry-count", "x-stainless-lang"]) {
            assert_eq!(forwarded(&[(name, "1")], &[]), [name]);
        }
    }

    #[test]
    fn what_the_operator_allows_goes_upstream_unless_the_connection_names_it() {
        let besides = [HeaderName::from_static("x-policy-id"), HeaderName::from_static("x-drop")];
        let given = [("connection", "close, X-Drop"), ("x-drop", "1"), ("x-policy-id", "1"), ("x-b", "1")];
        assert_eq!(forwarded(&given, &besides), ["x-policy-id"]);
    }

    #[test]
    fn what_speaks_of_upstreams_connection_stays_behind() {
        let mut answer = headers(&[
            ("connection", "keep-alive,  X-Drop ,,X-None, \u{e9}"),
            ("x-drop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-trailer"),
            ("proxy-authenticate", "Basic"),
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
        ]);
        answer.append(CONNECTION, "x-second".parse().unwrap());
        answer.append("x-second", "1".parse().unwrap());
        answer.append("x-second", "2".parse().unwrap());
        strip_response(&mut answer);
        let mut names: Vec<_> = answer.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "set-cookie"]);
    }

    #[test]
    fn every_value_of_a_forwarded_header_is_kept() {
        let mut given = HeaderMap::new();
        given.append("accept", "1".parse().unwrap());
        given.append("accept", "2".parse().unwrap());
        given.append("api-key", "1".parse().unwrap());
        given.append("api-key", "2".parse().unwrap());
        strip_request(&mut given, &[]);
        assert_eq!(given.len(), 2);
        assert_eq!(given.get_all("accept").iter().count(), 2);
    }
}
