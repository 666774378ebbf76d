//! The query of a request: where a key may be found, where a deployment may be named, and what goes upstream.

use std::borrow::Cow;

/// A query's parameters that hold a key, first found wins.
const KEYS: [&str; 2] = ["subscription-key", "api-key"];
/// A query's parameters that some clients name the deployment in.
const DEPLOYMENTS: [&str; 4] = ["deployment", "deployment-id", "deployment_id", "model"];

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

/// The lowest of the API versions that the query names.
#[must_use]
pub fn api_version(query: &str) -> Option<Cow<'_, str>> {
    pairs(query).filter(|(key, _)| key.eq_ignore_ascii_case("api-version")).map(|(_, value)| value).min()
}

/// The query without keys, otherwise as it was written; borrowed where there was none.
#[must_use]
pub fn without_keys(query: &str) -> Cow<'_, str> {
    let is_key =
        |pair: &str| pairs(pair).any(|(key, _)| KEYS.iter().any(|name| key.eq_ignore_ascii_case(name)));
    if !query.split('&').any(is_key) {
        return Cow::Borrowed(query);
    }
    let mut kept = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !is_key(pair)) {
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(pair);
    }
    Cow::Owned(kept)
}

/// The pairs of a query, unescaped: upstream would read `api%2Dkey` as `api-key`.
fn pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_order_and_removed_in_any_spelling() {
        let query = "api-version=2024-10-21&api-key=second&subscription-key=first";
        assert_eq!(key(query).as_deref(), Some("first"));
        assert_eq!(without_keys(query), "api-version=2024-10-21");
        assert_eq!(key("API%2dkey=x").as_deref(), Some("x"));
        assert_eq!(key("subscription-key=&api-key=&api-key=x").as_deref(), Some("x"));
        assert_eq!(key("subscription-key&api-key="), None);
        assert_eq!(without_keys("a=1&%61pi-key=x&b=%20"), "a=1&b=%20");
        assert_eq!(without_keys("api-key"), "");
        assert!(matches!(without_keys("api-version=1"), Cow::Borrowed("api-version=1")));
    }

    #[test]
    fn every_deployment_named_is_seen() {
        let named: Vec<_> = deployments("deployment=a&x=1&Model=b&deployment%2Did=c").collect();
        assert_eq!(named, ["a", "b", "c"]);
    }
}
