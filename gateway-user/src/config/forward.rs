//! `[forward]`: what of a caller's request goes upstream besides the usual.

use http::HeaderName;
use toml::de::DeValue;

use super::document::Section;
use super::error::Problem;
use super::value;

/// `[forward]`: the headers and query parameters that go upstream besides those that the gateway knows
/// ([`crate::request::forward`], [`crate::request::query`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forward {
    /// Headers.
    pub headers: Vec<HeaderName>,
    /// Query parameters, in lower case.
    pub query: Vec<String>,
}

impl Forward {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            headers: section.list("headers", header).unwrap_or_default(),
            query: section.list("query", parameter).unwrap_or_default(),
        }
    }
}

fn header(value: &DeValue<'_>) -> Result<HeaderName, Problem> {
    let text = value::text(value)?;
    let name: HeaderName = text
        .parse()
        .map_err(|_syntax: http::header::InvalidHeaderName| Problem::HeaderName(text.to_owned()))?;
    allowed(name.as_str())?;
    Ok(name)
}

fn parameter(value: &DeValue<'_>) -> Result<String, Problem> {
    let text = value::text(value)?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(Problem::ParameterName(text.to_owned()));
    }
    let name = text.to_ascii_lowercase();
    allowed(&name)?;
    Ok(name)
}

/// Refuses what would undo the gateway's work: a name that carries a key, moves a call or its bill elsewhere, or frames the
/// message. Whole words of the name count.
fn allowed(name: &str) -> Result<(), Problem> {
    let forbidden = [
        (CREDENTIALS, "carries credentials"),
        (ROUTING, "can send a call, or its bill, elsewhere"),
        (FRAMING, "is about this connection or about how the message is written"),
    ];
    let is_in = |words: &[&str]| {
        let mut parts = name.split(['-', '_', '.']);
        words.contains(&name) || parts.any(|part| words.contains(&part))
    };
    match forbidden.into_iter().find(|(words, _)| is_in(words)) {
        Some((_, why)) => Err(Problem::NeverForwarded { name: name.to_owned(), why }),
        None => Ok(()),
    }
}

/// Names, and words in names.
const CREDENTIALS: &[&str] = &[
    "auth",
    "authorization",
    "authenticate",
    "cert",
    "cookie",
    "credential",
    "key",
    "apikey",
    "password",
    "secret",
    "sig",
    "signature",
    "token",
];
const ROUTING: &[&str] = &[
    "deployment",
    "forwarded",
    "host",
    "method",
    "model",
    "organization",
    "override",
    "path",
    "project",
    "rewrite",
    "route",
    "spillover",
    "uri",
    "url",
    "via",
    "ip",
];
const FRAMING: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_carry_keys_or_routing_are_refused() {
        let text = |text: &str| DeValue::String(text.to_owned().into());
        assert_eq!(header(&text("X-Policy-ID")).unwrap(), "x-policy-id");
        assert_eq!(parameter(&text("Trace.Id")).unwrap(), "trace.id");
        for name in [
            "Authorization",
            "api-key",
            "x-api-key",
            "ocp-apim-subscription-key",
            "cookie",
            "x-ms-token-aad-access-token",
            "x-ms-spillover-deployment",
            "x-ms-oai-image-generation-deployment",
            "azureml-model-deployment",
            "x-original-url",
            "x-http-method-override",
            "openai-organization",
            "openai-project",
            "x-forwarded-for",
            "x-real-ip",
            "host",
            "via",
            "content-length",
            "transfer-encoding",
            "accept-encoding",
            "proxy-connection",
        ] {
            assert!(matches!(header(&text(name)), Err(Problem::NeverForwarded { .. })), "{name}");
        }
        for name in ["api-key", "subscription-key", "deployment", "deployment_id", "model"] {
            assert!(matches!(parameter(&text(name)), Err(Problem::NeverForwarded { .. })), "{name}");
        }
        assert!(matches!(header(&text("x a")), Err(Problem::HeaderName(_))));
        assert!(matches!(parameter(&text("a=b")), Err(Problem::ParameterName(_))));
    }
}
