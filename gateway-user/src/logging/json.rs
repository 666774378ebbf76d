//! An event as one JSON object on a line, written field by field without building the object first.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::reply::utc;

/// The format: `timestamp`, `level`, `message`, then the event's own fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = utc(now.as_secs());
        let seconds = date.trim_end_matches('Z');
        let level = event.metadata().level();
        write!(out, "{{\"timestamp\":\"{seconds}.{:06}Z\",\"level\":\"{level}\"", now.subsec_micros())?;
        let mut fields = Fields { out: &mut out, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        out.write_str("}\n")
    }
}

struct Fields<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn bare(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.write(|out| write!(out, ",\"{}\":{value}", field.name()));
    }

    fn quoted(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.write(|out| {
            write!(out, ",\"{}\":\"", field.name())?;
            Escaped(out).write_fmt(value)?;
            out.write_char('"')
        });
    }

    fn write(&mut self, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        self.result = self.result.and_then(|()| write(self.out));
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        if value.is_finite() {
            self.bare(field, format_args!("{value:.3}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.quoted(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.quoted(field, format_args!("{value:?}"));
    }
}

/// Writes text as the inside of a JSON string (RFC 8259, 7).
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            match characters.next() {
                Some(quoted @ ('"' | '\\')) => write!(self.0, "\\{quoted}")?,
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(log: impl FnOnce()) -> Value {
        let sink = Sink::default();
        let layer = tracing_subscriber::fmt::layer().with_writer(sink.clone()).event_format(Lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let line = sink.0.lock().clone();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn an_event_is_one_object_with_its_fields() {
        let value = logged(|| {
            let absent: Option<u64> = None;
            tracing::info!(count = 3, ratio = 0.5, text = "a", shown = %"b", absent, yes = true, "said");
        });
        assert_eq!(value["message"], "said");
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["count"], 3);
        assert_eq!(value["ratio"], 0.5);
        assert_eq!((&value["text"], &value["shown"]), (&Value::from("a"), &Value::from("b")));
        assert_eq!(value["yes"], true);
        assert!(value.get("absent").is_none());
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn no_text_breaks_out_of_its_string() {
        let text = "quote \" backslash \\ newline \n tab \t nul \0 \u{e9}\u{1f600}";
        let value = logged(|| tracing::warn!(text, shown = %text, "m\"x"));
        assert_eq!((&value["text"], &value["shown"]), (&Value::from(text), &Value::from(text)));
        assert_eq!(value["message"], "m\"x");
    }
}
