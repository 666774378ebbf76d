//! A caller's headers: where its key is found, and which of them go upstream.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderName};

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

/// Removes the headers that do not go upstream: those that speak of this connection (RFC 9110, 7.6.1), of the caller's
/// credentials or address, or that could redirect what the call costs.
pub fn strip_request(headers: &mut HeaderMap) {
    strip_named(headers);
    strip(headers, |name| !is_forwarded(name));
}

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

fn is_forwarded(name: &str) -> bool {
    if is_hop_by_hop(name) {
        return false;
    }
    match name {
        "authorization" | "api-key" | "cookie" | "forwarded" | "via" | "host" | "content-length"
        | "expect" | "http2-settings" | "x-real-ip" => false,
        // A compressed answer could not be metered.
        "accept-encoding" => false,
        "x-ms-client-request-id" | "x-ms-return-client-request-id" | "x-ms-useragent" => true,
        // `x-ms-spillover-deployment` moves a call to another deployment; none of its kind is let through unknown.
        _ => !["x-ms-", "x-forwarded-", "ocp-apim-"].iter().any(|prefix| name.starts_with(prefix)),
    }
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

    #[test]
    fn what_could_identify_or_redirect_stays_here() {
        let mut forwarded = headers(&[
            ("authorization", "Bearer k"),
            ("api-key", "k"),
            ("ocp-apim-subscription-key", "k"),
            ("ocp-apim-trace", "true"),
            ("host", "gateway"),
            ("connection", "close, X-Drop"),
            ("x-drop", "1"),
            ("cookie", "a=b"),
            ("te", "trailers"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-host", "evil"),
            ("x-ms-spillover-deployment", "big"),
            ("x-ms-anything-new", "1"),
            ("x-ms-client-request-id", "id"),
            ("x-ms-return-client-request-id", "true"),
            ("content-type", "application/json"),
            ("user-agent", "sdk"),
            ("x-stainless-retry-count", "0"),
        ]);
        strip_request(&mut forwarded);
        let mut names: Vec<_> = forwarded.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-type",
                "user-agent",
                "x-ms-client-request-id",
                "x-ms-return-client-request-id",
                "x-stainless-retry-count"
            ]
        );
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
        given.append("x-a", "1".parse().unwrap());
        given.append("x-a", "2".parse().unwrap());
        given.append("api-key", "1".parse().unwrap());
        given.append("api-key", "2".parse().unwrap());
        strip_request(&mut given);
        assert_eq!(given.len(), 2);
        assert_eq!(given.get_all("x-a").iter().count(), 2);
    }
}
