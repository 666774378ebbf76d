//! `/metrics`, in the format that is asked for.

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Prometheus' text format, version 0.0.4: what is sent where nothing else is asked for.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The content type and the metrics; the status of an answer that has none.
pub(super) fn write(headers: &HeaderMap, registry: &Registry) -> Result<(&'static str, String), StatusCode> {
    let format = accepted(headers);
    let mut body = String::new();
    let written = match format {
        Format::Text => prometheus_text::encode(&mut body, registry),
        Format::OpenMetrics => text::encode(&mut body, registry),
    };
    match written {
        Ok(()) => Ok((format.content_type(), body)),
        Err(std::fmt::Error) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The format that `Accept` prefers (RFC 9110, 12.5.1) among those that there are, as Prometheus' own libraries choose:
/// the highest weight, of equal ones the first, and where it names neither the text format.
fn accepted(headers: &HeaderMap) -> Format {
    let mut best = (0.0, Format::Text);
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        if let Some((weight, format)) = offered(range)
            && weight > best.0
        {
            best = (weight, format);
        }
    }
    best.1
}

/// Which format a media range stands for, and its weight; nothing where it stands for neither.
fn offered(range: &str) -> Option<(f32, Format)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    let (mut version, mut weight) = (None, 1.0);
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        match (name.trim(), value.trim().trim_matches('"')) {
            ("version", value) => version = Some(value),
            ("q", value) => weight = value.parse().ok()?,
            _ => {}
        }
    }
    let format = match (kind.to_ascii_lowercase().as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Format::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Format::Text,
        _ => return None,
    };
    Some((weight, format))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let of = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            accepted(&headers)
        };
        for (accept, format) in [
            (&[][..], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/html, image/png"], Format::Text),
            (&["text/plain; version=0.0.4"], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["application/openmetrics-text; version=1.0.0; charset=utf-8"], Format::OpenMetrics),
            (&["application/openmetrics-text; version=0.0.1"], Format::Text),
            (&["application/openmetrics-text; q=0"], Format::Text),
            (
                &["text/plain;q=0.3", "application/openmetrics-text;version=\"1.0.0\";q=0.5"],
                Format::OpenMetrics,
            ),
            (&["text/plain;q=0.5,application/openmetrics-text;q=0.5"], Format::Text),
            // Prometheus 2.53 and 3.0, as they ask.
            (
                &[
                    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                   text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ],
                Format::OpenMetrics,
            ),
            (
                &["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1"],
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(of(accept), format, "{accept:?}");
        }
    }
}
