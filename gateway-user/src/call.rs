//! One metered call, from its admission to its settlement.
//!
//! A [`Call`] owns what the call holds. However it ends (answered, refused, broken, abandoned, panicked) it is dropped,
//! and what was not settled by then is settled there, by what is known: so a hold is settled exactly once.

mod prompt;
mod report;
mod rest;
mod settlement;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use crate::billing::{Bill, End, Held, Metered};
use crate::gateway::{Deployment, Gateway, Tenant};
use crate::limits::{Admission, Ceiling};
use crate::meter::Usage;
use crate::metrics::CallSeries;
use crate::names::BackendName;
use crate::reply::Refusal;
use crate::request_id::RequestId;
use crate::tenant::KeySlot;
use crate::tokens::Estimate;
use crate::units::Tokens;
use report::{Report, Trace};
use rest::Rest;
use settlement::{Settled, Settlement};

pub(crate) use prompt::{Prompt, Uncounted, bound as prompt_bound, count as count_prompt};
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
    pub(crate) prompt: Prompt,
    pub(crate) slot: KeySlot,
    pub(crate) admission: Option<Admission>,
    /// What is to be booked once the prompt was counted.
    unsettled: Option<Box<Settlement>>,
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
    pub(crate) prompt: Prompt,
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
            admission: Some(admission),
            unsettled: None,
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

    /// Counts a prompt that is held at its bytes.
    pub(crate) async fn count(&mut self) {
        poll_fn(|cx| self.poll_counted(cx)).await;
    }

    fn poll_counted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { gateway, tenant, deployment, .. } = self;
        if let Some(estimate) = ready!(self.prompt.poll_count(gateway, tenant, deployment, cx)) {
            let tokens = corrected(tenant, deployment, &estimate);
            if let Some(admission) = &mut self.admission {
                admission.shrink_prompt(tokens);
            }
            self.prompt = Prompt::Counted { tokens, estimate };
        }
        Poll::Ready(())
    }

    /// Keeps the request for as long as the answer takes, which may be long, or what of it will be needed.
    pub(crate) async fn keep_prompt(&mut self) {
        if self.prompt.is_in_the_way() {
            self.count().await;
        }
        self.prompt.keep_for_long();
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

    /// Books what the call used. Only the first settlement counts. Where the prompt has to be counted for it, it is done with
    /// [`Self::poll_settled`] or when the call is dropped.
    pub(crate) fn settle(&mut self, end: End, metered: &Metered) {
        let Some(admission) = self.admission.take() else { return };
        let settlement = Settlement {
            gateway: Arc::clone(&self.gateway),
            tenant: Arc::clone(&self.tenant),
            deployment: Arc::clone(&self.deployment),
            series: Arc::clone(&self.series),
            request_id: self.request_id,
            streaming: self.streaming,
            held: self.held(end, &admission),
            admission,
            end,
            metered: *metered,
        };
        if self.prompt.is_uncounted() && settlement.rests_on_prompt() {
            self.unsettled = Some(Box::new(settlement));
        } else {
            // The request is not needed any more, nor its memory.
            drop(self.prompt.take_uncounted());
            self.book(settlement);
        }
    }

    /// Waits until what a settlement booked is known.
    pub(crate) async fn settlement(&mut self) {
        poll_fn(|cx| self.poll_settled(cx)).await;
    }

    /// Counts the prompt where a settlement waits for that.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsettled.is_some() {
            ready!(self.poll_counted(cx));
        }
        if let Some(settlement) = self.unsettled.take() {
            self.book(*settlement);
        }
        Poll::Ready(())
    }

    fn book(&mut self, settlement: Settlement) {
        if let Some(Settled { bill, slot }) = settlement.book(self.prompt.held(), self.prompt.estimate()) {
            self.settled = Some(bill);
            self.delivering = Some(slot);
        }
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
            prompt: self.prompt.held(),
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
        let waiting = self.unsettled.take().and_then(|settlement| match self.prompt.take_uncounted() {
            Some(request) => Some((settlement, request)),
            None => {
                self.book(*settlement);
                None
            }
        });
        let rest = Rest {
            report: self.report(status),
            reports: self.reports.clone(),
            slot: self.delivering.take(),
            tenant: Arc::clone(&self.tenant),
        };
        match waiting {
            Some((settlement, request)) => {
                let compute = self.gateway.compute.clone();
                compute.see_to(&self.tenant.name, move || rest.settle(*settlement, &request));
            }
            None => rest.finish(),
        }
    }
}

/// The reason of a call whose caller hung up before the end.
pub(crate) const CALLER_GONE: &str = "caller_gone";
/// The reason of a call that ended in a panic: its caller's connection or stream broke off.
const INTERNAL_ERROR: &str = "internal_error";
/// There is no registered status for a caller that hung up before there was one; 499 is what nginx logs.
const CALLER_GONE_STATUS: u16 = 499;

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
