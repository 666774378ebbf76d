//! One metered call, from its admission to its settlement.
//!
//! A [`Call`] owns what the call holds. However it ends (answered, refused, broken, abandoned, panicked) it is dropped,
//! and what was not settled by then is settled there, by what is known: so a hold is settled exactly once.

mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use crate::billing::{self, Bill, End, Held, Metered, Source};
use crate::gateway::{Deployment, Gateway, Tenant};
use crate::limits::{Admission, Ceiling, Output, Used};
use crate::meter::Usage;
use crate::metrics::CallSeries;
use crate::names::BackendName;
use crate::reply::Refusal;
use crate::request_id::RequestId;
use crate::tenant::KeySlot;
use crate::tokens::Estimate;
use crate::units::Tokens;
use report::{Report, Trace};

pub(crate) use report::{Reporter, Reports};

/// Turns of one call with tools that run upstream, beyond which its usage is not believed.
const MOST_HOSTED_TURNS: u64 = 64;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has gone upstream.
    Admitted,
    /// The request is upstream's, and there is no response yet.
    Forwarded,
    /// A response has begun.
    Answering(StatusCode),
}

/// A call's permission to go on, which can be withdrawn at any time.
#[derive(Debug, Clone)]
pub(crate) struct Permission {
    gateway: Arc<Gateway>,
    tenant: Arc<Tenant>,
    slot: KeySlot,
}

impl Permission {
    /// Why the call may not go on, whatever upstream does.
    pub(crate) fn withdrawn(&self) -> Option<Refusal> {
        if self.tenant.is_revoked(self.slot) {
            return Some(Refusal::InvalidKey);
        }
        self.gateway.is_shutting_down().then_some(Refusal::ShuttingDown)
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) series: Arc<CallSeries>,
    pub(crate) request_id: RequestId,
    pub(crate) arrived: Instant,
    pub(crate) streaming: bool,
    /// How many answers upstream writes.
    pub(crate) answers: u64,
    /// What the prompt is held at: an estimate as it was corrected, or until there is one an upper bound.
    pub(crate) prompt: Tokens,
    pub(crate) estimate: Option<Estimate>,
    pub(crate) slot: KeySlot,
    pub(crate) admission: Option<Admission>,
    /// The call's slot from its settlement to the delivery of its answer.
    delivering: Option<Admission>,
    stage: Stage,
    forwarded_at: Option<Instant>,
    answered_at: Option<Instant>,
    first_chunk_at: Option<Instant>,
    /// When upstream's last byte came, and the one before it.
    heard_at: Option<Instant>,
    heard_before: Option<Instant>,
    settled: Option<Bill>,
    trace: Trace,
    reports: Reports,
    /// Why it did not end as upstream would have ended it.
    reason: &'static str,
    /// The gateway's own answer in place of upstream's.
    refused: Option<StatusCode>,
}

/// What a call is made of.
pub(crate) struct Admitted {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) slot: KeySlot,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) request_id: RequestId,
    pub(crate) arrived: Instant,
    pub(crate) streaming: bool,
    pub(crate) answers: u64,
    pub(crate) prompt: Tokens,
    pub(crate) estimate: Option<Estimate>,
    pub(crate) admission: Admission,
    pub(crate) reports: Reports,
}

impl Call {
    /// A call that was just let in.
    pub(crate) fn new(admitted: Admitted) -> Self {
        let Admitted {
            gateway,
            tenant,
            slot,
            deployment,
            request_id,
            arrived,
            streaming,
            answers,
            prompt,
            estimate,
            admission,
            reports,
        } = admitted;
        let series = tenant.series(&deployment, &gateway.metrics);
        tenant.inflight.inc();
        Self {
            gateway,
            tenant,
            slot,
            deployment,
            series,
            request_id,
            arrived,
            streaming,
            answers,
            prompt,
            estimate,
            admission: Some(admission),
            delivering: None,
            stage: Stage::Admitted,
            forwarded_at: None,
            answered_at: None,
            first_chunk_at: None,
            heard_at: None,
            heard_before: None,
            settled: None,
            trace: Trace::default(),
            reports,
            reason: "",
            refused: None,
        }
    }

    /// What allows the call to go on.
    pub(crate) fn permission(&self) -> Permission {
        Permission { gateway: Arc::clone(&self.gateway), tenant: Arc::clone(&self.tenant), slot: self.slot }
    }

    /// The request is about to go upstream. It may be once more, where the connection before was found closed.
    pub(crate) fn forwarding(&mut self, backend: &BackendName) {
        self.trace.backend = Some(backend.clone());
        let now = Instant::now();
        self.stage = Stage::Forwarded;
        if let Some(overhead) = own_time(self.arrived, self.forwarded_at.replace(now), now) {
            self.gateway.metrics.overhead.observe(overhead.as_secs_f64());
        }
    }

    /// The request did not get upstream after all.
    pub(crate) const fn not_forwarded(&mut self) {
        self.stage = Stage::Admitted;
    }

    /// A response has begun.
    pub(crate) fn answering(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.trace.answered(headers);
        let now = Instant::now();
        self.stage = Stage::Answering(status);
        self.answered_at = Some(now);
        self.heard(now);
        if let Some(forwarded) = self.forwarded_at {
            self.gateway.metrics.upstream.observe(now.saturating_duration_since(forwarded).as_secs_f64());
        }
    }

    /// The first chunk of a stream has come.
    pub(crate) fn first_chunk(&mut self, now: Instant) {
        if self.first_chunk_at.is_none() {
            self.first_chunk_at = Some(now);
            let waited = now.saturating_duration_since(self.arrived).as_secs_f64();
            self.gateway.metrics.time_to_first_token.observe(waited);
        }
    }

    /// Takes the closer estimate of a prompt that was held at an upper bound.
    pub(crate) fn estimated(&mut self, estimate: Estimate) {
        let prompt = corrected(&self.tenant, &self.deployment, &estimate);
        if let Some(admission) = &mut self.admission {
            admission.shrink_prompt(prompt);
        }
        self.prompt = prompt;
        self.estimate = Some(estimate);
    }

    /// Notes that the gateway answers in upstream's place.
    pub(crate) const fn refused(&mut self, refusal: &Refusal) {
        self.refused = Some(refusal.status());
        self.reason = refusal.reason();
    }

    /// Notes why the response does not end as upstream would have ended it.
    pub(crate) const fn ended_by(&mut self, reason: &'static str) {
        self.reason = reason;
    }

    /// Whether it is known why the response does not end as upstream would have ended it.
    pub(crate) const fn has_reason(&self) -> bool {
        !self.reason.is_empty()
    }

    /// Upstream's last byte has come just now.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_before = self.heard_at;
        self.heard_at = Some(now);
    }

    /// Books what the call used. Only the first settlement counts.
    pub(crate) fn settle(&mut self, end: End, metered: &Metered) {
        let Some(admission) = self.admission.take() else { return };
        // Dropped unsettled, an admission frees its hold and books nothing.
        let Some(bill) = billing::bill(end, metered, &self.held(end, &admission)) else { return };
        let Bill { booked, source, corrected } = bill;
        if corrected {
            self.disbelieved(metered);
        }
        let known = match source {
            Source::Upstream => {
                if !corrected {
                    self.compare(booked.usage.input);
                }
                self.series.settled_upstream.inc();
                Output::Known
            }
            Source::Counted | Source::Assumed => {
                self.series.settled_counted.inc();
                if source == Source::Counted && end != End::PromptRead {
                    Output::Known
                } else {
                    Output::Assumed
                }
            }
        };
        let used = Used { tokens: booked.usage.total(), output: booked.usage.output, cost: booked.cost };
        self.delivering = Some(admission.settle_keeping_slot(used, known, self.gateway.clock.now()));
        let series = if self.streaming { &self.series.stream } else { &self.series.single };
        series.add(&booked);
        self.settled = Some(bill);
    }

    /// What is held, and how long upstream has had. Of an answer that failed, the time up to the failure counts, which came with
    /// upstream's last byte.
    fn held(&self, end: End, admission: &Admission) -> Held {
        let now = Instant::now();
        let sent = self.forwarded_at.unwrap_or(self.arrived);
        let (until, last) = match end {
            End::Failed => (self.heard_at.unwrap_or(now), self.heard_before.unwrap_or(sent)),
            End::Unbilled | End::PromptRead | End::Complete | End::Unfinished => {
                (now, self.heard_at.unwrap_or(sent))
            }
        };
        let speed = u64::from(self.deployment.max_tokens_per_second.get());
        let facts = &self.deployment.facts;
        let strict = self.tenant.limits().ceiling == Ceiling::Strict;
        // Tools that run upstream make a call several turns long, each with the whole prompt; a strict ceiling lets none in.
        let turns = if strict { 1 } else { MOST_HOSTED_TURNS };
        Held {
            prompt: self.prompt,
            output: admission.output_assumed(),
            strict,
            reasons: facts.reasons,
            tokens_per_second: speed.saturating_mul(self.answers),
            since_sent: until.saturating_duration_since(sent),
            since_last: until.saturating_duration_since(last),
            most: (
                facts.context_window.map_or(Tokens::MAX, |most| most.saturating_mul(turns)),
                facts
                    .max_output
                    .map_or(Tokens::MAX, |most| most.saturating_mul(self.answers.saturating_mul(turns))),
            ),
            prices: *admission.prices(),
        }
    }

    /// Tells of a count of upstream's that cannot be right.
    fn disbelieved(&self, metered: &Metered) {
        self.gateway.metrics.usage_out_of_bounds.inc();
        let reported = metered.usage.unwrap_or_default();
        tracing::warn!(
            request_id = %self.request_id,
            deployment = %self.deployment.name,
            prompt_tokens = reported.input.get(),
            completion_tokens = reported.output.get(),
            counted_completion_tokens = metered.seen.get(),
            "upstream's usage is out of bounds; the bound is booked"
        );
    }

    /// Compares what a prompt was held at with upstream's count, and learns from it.
    fn compare(&self, input: Tokens) {
        self.series.estimate_shortfall.inc_by(input.saturating_sub(self.prompt).get());
        if let Some(estimate) = &self.estimate
            && input > Tokens::ZERO
        {
            self.gateway.metrics.estimate_ratio.observe(ratio(self.prompt, input));
            self.tenant.account.learn(&self.deployment.name, estimate, input);
        }
    }

    /// What was booked; nothing before the settlement.
    pub(crate) fn settled(&self) -> Usage {
        self.settled.map_or_else(Usage::default, |bill| bill.booked.usage)
    }

    fn report(&self, status: u16) -> Report {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        Report {
            request_id: self.request_id,
            tenant: self.tenant.name.clone(),
            deployment: self.deployment.name.clone(),
            status,
            reason: self.reason,
            streaming: self.streaming,
            prompt: self.settled().input,
            completion: self.settled().output,
            bill: self.settled,
            trace: self.trace.clone(),
            upstream: self.forwarded_at.zip(self.answered_at).map(|(from, to)| since(from, to)),
            first_chunk: self.first_chunk_at.map(|chunk| since(self.arrived, chunk)),
            duration: self.arrived.elapsed(),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let end = match self.stage {
            Stage::Admitted => End::Unbilled,
            // The caller has gone while upstream was at work.
            Stage::Forwarded | Stage::Answering(_) => End::Unfinished,
        };
        let answered = matches!(self.stage, Stage::Answering(_));
        self.settle(end, &Metered { answered, unread: answered, ..Metered::default() });
        let status = match (self.refused, self.stage) {
            (Some(refused), _) => refused.as_u16(),
            (None, Stage::Answering(status)) => status.as_u16(),
            (None, Stage::Admitted | Stage::Forwarded) if std::thread::panicking() => 500,
            (None, Stage::Admitted | Stage::Forwarded) => {
                self.reason = CALLER_GONE;
                CALLER_GONE_STATUS
            }
        };
        if std::thread::panicking() {
            self.reason = INTERNAL_ERROR;
        }
        if status == 200 && self.reason.is_empty() {
            self.series.answered.inc();
        } else {
            let (tenant, deployment) = (Some(&self.tenant.name), Some(&self.deployment.name));
            self.gateway.metrics.request(tenant, deployment, status, self.reason);
        }
        self.reports.add(self.report(status));
        // Last: who sees that no call is open finds all of them counted.
        drop(self.delivering.take());
        self.tenant.inflight.dec();
    }
}

/// The reason of a call whose caller hung up before the end.
pub(crate) const CALLER_GONE: &str = "caller_gone";
/// The reason of a call that ended in a panic: its caller's connection or stream broke off.
const INTERNAL_ERROR: &str = "internal_error";
/// There is no registered status for a caller that hung up before there was one; 499 is what nginx logs.
const CALLER_GONE_STATUS: u16 = 499;

#[expect(clippy::cast_precision_loss, reason = "a ratio for a histogram")]
fn ratio(estimate: Tokens, actual: Tokens) -> f64 {
    estimate.get() as f64 / actual.get() as f64
}

/// What a prompt is held at, after what its tenant's calls to the deployment have shown.
pub(crate) fn corrected(tenant: &Tenant, deployment: &Deployment, estimate: &Estimate) -> Tokens {
    tenant.account.corrected(&deployment.name, estimate, tenant.limits().ceiling)
}

/// The gateway's own time, of a request that goes upstream at `now`. It is told at the first try only: from then on the call
/// waits for connections, and is still one call.
fn own_time(arrived: Instant, tried_before: Option<Instant>, now: Instant) -> Option<Duration> {
    tried_before.is_none().then(|| now.saturating_duration_since(arrived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_try_tells_no_time_of_our_own() {
        let arrived = Instant::now();
        let at = |ms| arrived + Duration::from_millis(ms);
        assert_eq!(own_time(arrived, None, at(20)), Some(Duration::from_millis(20)));
        assert_eq!(own_time(arrived, Some(at(20)), at(70)), None);
    }
}
