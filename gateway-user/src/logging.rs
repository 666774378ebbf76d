//! The log: events on standard error, as text for people or one JSON object a line for machines.
//!
//! A call's line is formatted where the call runs and appended to a buffer; a thread of its own writes the buffer out, so
//! that no call waits for a terminal or a pipe.

mod json;
mod writer;

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{Log, LogFormat};
pub use writer::Flush;

/// Events of other crates are of interest only when something is wrong, and below that they show what passes: h2, hyper and
/// rustls write headers with keys, and bodies.
const OTHERS: LevelFilter = LevelFilter::WARN;

/// Starts the log. What is still to be written when the guard is dropped is written then; all the rest too, until
/// [`Flush::in_background`].
#[must_use]
pub fn start(log: Log) -> Flush {
    let (writer, flush) = writer::to_standard_error();
    let terminal = std::io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = fmt::layer().with_writer(writer);
    let layer = if text {
        layer.with_target(false).with_ansi(terminal).boxed()
    } else {
        layer.event_format(json::Lines).boxed()
    };
    if tracing_subscriber::registry().with(levels(log.level)).with(layer).try_init().is_err() {
        // Another log is in place: a test's.
        tracing::debug!("the log is already started");
    }
    flush
}

/// What is written at `log.level`: the gateway's own events from there on.
fn levels(level: LevelFilter) -> Targets {
    Targets::new().with_default(OTHERS.min(level)).with_target(env!("CARGO_CRATE_NAME"), level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn no_level_shows_what_other_crates_see_of_calls() {
        let levels = levels(LevelFilter::TRACE);
        assert!(levels.would_enable("gateway_user::pipeline", &Level::TRACE));
        for other in
            ["h2::codec", "hyper::proto::h1", "rustls::conn", "azure_core::http", "reqwest", "redis", "redb"]
        {
            assert!(levels.would_enable(other, &Level::WARN), "{other}");
            assert!(!levels.would_enable(other, &Level::INFO), "{other}");
        }
    }
}
