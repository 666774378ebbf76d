//! The query of a request: where a key may be found, where a deployment may be named, and what goes upstream.

use std::borrow::Cow;

/// A query's parameters that hold a key, first found wins.
const KEYS: [&str; 2] = ["subscription-key", "api-key"];
/// A query's parameters that some clients name the deployment in.
const DEPLOYMENTS: [&str; 4] = ["deployment", "deployment-id", "deployment_id", "model"];
/// Which version of the API is spoken (Azure OpenAI, "REST API versioning").
const API_VERSION: &str = "api-version";

/// The caller's key, as it stands in the query. An empty value is no key.
#[must_use]
pub fn key(query: &str) -> Option<Cow<'_, str>> {
    KEYS.iter().find_map(|name| {
        let is_key = |key: &str, value: &str| key.eq_ignore_ascii_case(name) && !value.is_empty();
        pairs(query).find(|(key, value)| is_key(key, value)).map(|(_, value)| value)
    })
}

/// Every deployment that the query names.
pub fn deployments(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pairs(query)
        .filter(|(key, _)| DEPLOYMENTS.iter().any(|name| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}

/// The API version that the query names.
#[must_use]
pub fn api_version(query: &str) -> Option<Cow<'_, str>> {
    pairs(query).find(|(key, _)| key.eq_ignore_ascii_case(API_VERSION)).map(|(_, value)| value)
}

/// A parameter that goes upstream is there twice: each of two readers could take another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query parameter `{0}` occurs more than once")]
pub struct Twice(String);

/// The query that goes upstream: `api-version`, and the parameters that the operator allows `besides` (in lower case). It is
/// written anew from what was read here, so that upstream reads the same; borrowed where it was written like that already.
///
/// # Errors
/// When one of them is there twice.
pub fn forwarded<'a>(query: &'a str, besides: &[String]) -> Result<Cow<'a, str>, Twice> {
    let mut seen: Vec<String> = Vec::new();
    let mut kept = form_urlencoded::Serializer::new(String::new());
    for (key, value) in pairs(query) {
        let name = key.to_ascii_lowercase();
        if name != API_VERSION && !besides.contains(&name) {
            continue;
        }
        if seen.contains(&name) {
            return Err(Twice(name));
        }
        kept.append_pair(&name, &value);
        seen.push(name);
    }
    let kept = kept.finish();
    Ok(if kept == query { Cow::Borrowed(query) } else { Cow::Owned(kept) })
}

/// The pairs of a query, unescaped: upstream would read `api%2Dkey` as `api-key`.
fn pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_order_and_in_any_spelling() {
        let query = "api-version=2024-10-21&api-key=second&subscription-key=first";
        assert_eq!(key(query).as_deref(), Some("first"));
        assert_eq!(key("API%2dkey=x").as_deref(), Some("x"));
        assert_eq!(key("subscription-key=&api-key=&api-key=x").as_deref(), Some("x"));
        assert_eq!(key("subscription-key&api-key="), None);
    }

    #[test]
    fn what_is_known_goes_upstream_and_nothing_else() {
        let of = |query| forwarded(query, &["trace".to_owned()]).unwrap();
        assert!(matches!(of("api-version=2024-10-21"), Cow::Borrowed("api-version=2024-10-21")));
        assert_eq!(
            of("a=1&%61pi-key=x&API%2Dversion=v1&api-key&deployment=chat&Trace=%26"),
            "api-version=v1&trace=%26"
        );
        assert_eq!(of("api-key"), "");
        assert_eq!(of(""), "");
    }

    #[test]
    fn what_goes_upstream_is_there_once() {
        for query in
            ["api-version=1&api-version=2", "api-version=1&API-Version=1", "api%2Dversion=1&api-version="]
        {
            assert_eq!(forwarded(query, &[]), Err(Twice("api-version".to_owned())), "{query}");
        }
        assert_eq!(forwarded("a=1&a=2", &[]).as_deref(), Ok(""));
        assert!(forwarded("a=1&A=2", &["a".to_owned()]).is_err());
    }

    #[test]
    fn every_deployment_named_is_seen() {
        let named: Vec<_> = deployments("deployment=a&x=1&Model=b&deployment%2Did=c").collect();
        assert_eq!(named, ["a", "b", "c"]);
    }
}
