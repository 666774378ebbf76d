//! What the log says of a call that has ended, said once its answer has left.
//!
//! A line takes longer to write than the rest of what ends a call. The caller is not to wait for it, nor are the chunks of
//! other streams.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;

use crate::billing::Bill;
use crate::meter::Usage;
use crate::names::{BackendName, DeploymentName, TenantName};
use crate::request_id::RequestId;

/// Reports that may wait; those beyond are logged at once.
const WAITING: usize = 256;

/// Headers in which upstream names its own id of a request, first found wins.
const UPSTREAM_REQUEST_IDS: [&str; 2] = ["x-request-id", "apim-request-id"];
/// A longer id is not logged; Azure's have 36 characters.
const LONGEST_ID: usize = 128;

/// Where a call went and how its figures came about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    /// The backend that it was sent to last.
    pub(super) backend: Option<BackendName>,
    /// Upstream's own id of it, which Azure's support asks for.
    pub(super) upstream_request_id: Option<HeaderValue>,
}

/// One call, as the log tells of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) request_id: RequestId,
    pub(super) tenant: TenantName,
    pub(super) deployment: DeploymentName,
    pub(super) status: u16,
    pub(super) reason: &'static str,
    pub(super) streaming: bool,
    /// What the call paid, and what that rests on; nothing where it was not booked.
    pub(super) bill: Option<Bill>,
    pub(super) trace: Trace,
    /// From the request's going upstream to the head of the response.
    pub(super) upstream: Option<Duration>,
    /// From the call's arrival to its first chunk.
    pub(super) first_chunk: Option<Duration>,
    /// From the call's arrival to its end.
    pub(super) duration: Duration,
}

/// Takes the reports of one worker's calls.
#[derive(Debug, Clone)]
pub(crate) struct Reports(mpsc::Sender<Report>);

/// Logs the reports of one worker's calls. Dropped, it logs what is waiting; after that each call logs its own.
#[derive(Debug)]
pub(crate) struct Reporter(mpsc::Receiver<Report>);

impl Reports {
    pub(crate) fn new() -> (Self, Reporter) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), Reporter(receiver))
    }

    pub(super) fn add(&self, report: Report) {
        if let Err(refused) = self.0.try_send(report) {
            refused.into_inner().log();
        }
    }
}

impl Reporter {
    /// Logs for as long as it is polled: after what was ready before a call's end, its answer among that.
    pub(crate) async fn run(mut self) {
        while let Some(report) = self.0.recv().await {
            report.log();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.close();
        while let Ok(report) = self.0.try_recv() {
            report.log();
        }
    }
}

impl Report {
    fn log(&self) {
        let usage = self.bill.map_or_else(Usage::default, |bill| bill.booked.usage);
        tracing::info!(
            request_id = %self.request_id,
            tenant = %self.tenant,
            deployment = %self.deployment,
            status = self.status,
            reason = self.reason,
            stream = self.streaming,
            prompt_tokens = usage.input.get(),
            completion_tokens = usage.output.get(),
            cost_dollars = self.bill.map(|bill| bill.booked.cost.as_dollars()),
            usage_source = self.bill.map(|bill| bill.source.as_str()),
            backend = self.trace.backend.as_ref().map(BackendName::as_str),
            upstream_request_id = self.trace.upstream_request_id.as_ref().and_then(|id| id.to_str().ok()),
            upstream_ms = self.upstream.map(millis),
            first_chunk_ms = self.first_chunk.map(millis),
            duration_ms = millis(self.duration),
            "call"
        );
    }
}

impl Trace {
    /// Takes upstream's own id from the head of its response.
    pub(super) fn answered(&mut self, headers: &HeaderMap) {
        let id = UPSTREAM_REQUEST_IDS.iter().find_map(|name| headers.get(*name));
        self.upstream_request_id = id.filter(|id| id.len() <= LONGEST_ID).cloned();
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::request_id::RequestIds;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn count(&self) -> usize {
            String::from_utf8(self.0.lock().clone()).unwrap().lines().count()
        }
    }

    fn report() -> Report {
        Report {
            request_id: RequestIds::new().unwrap().next(),
            tenant: TenantName::new("acme").unwrap(),
            deployment: DeploymentName::new("chat").unwrap(),
            status: 200,
            reason: "",
            streaming: false,
            bill: None,
            trace: Trace::default(),
            upstream: None,
            first_chunk: None,
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn every_report_is_logged_once_however_many_wait_and_whoever_goes_first() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let (reports, reporter) = Reports::new();
            (0..WAITING).for_each(|_| reports.add(report()));
            assert_eq!(lines.count(), 0, "they wait");
            reports.add(report());
            assert_eq!(lines.count(), 1, "there is no room for it");
            drop(reporter);
            assert_eq!(lines.count(), 1 + WAITING);
            reports.add(report());
            assert_eq!(lines.count(), 2 + WAITING);
        });
    }
}
