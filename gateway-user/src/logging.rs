//! The log: events on standard error, written by a thread of their own so that no call waits for a terminal or a pipe.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{Log, LogFormat};

/// Lines that may wait to be written. Beyond them lines are dropped, rather than calls held up.
const MOST_WAITING: usize = 16 * 1024;
/// Events of other crates are of interest only when something is wrong.
const OTHERS: LevelFilter = LevelFilter::WARN;

/// Starts the log. What is still to be written when the guard is dropped is written then.
#[must_use]
pub fn start(log: Log) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MOST_WAITING)
        .lossy(true)
        .finish(std::io::stderr());
    let text = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = fmt::layer().with_writer(writer).with_target(false);
    let layer = if text {
        layer.with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    let filter = tracing_subscriber::filter::Targets::new()
        .with_default(OTHERS.min(log.level))
        .with_target("gateway_user", log.level);
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if started.is_err() {
        // Another log is in place: a test's.
        tracing::debug!("the log is already started");
    }
    guard
}
