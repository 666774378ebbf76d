//! What is to be booked of a call once it has ended.

use std::sync::Arc;

use crate::billing::{self, Bill, End, Held, Metered, Source};
use crate::gateway::{Deployment, Gateway, Tenant};
use crate::limits::{Admission, Output, Used};
use crate::metrics::CallSeries;
use crate::request_id::RequestId;
use crate::tokens::Estimate;
use crate::units::Tokens;

/// A call that has ended, before its books are written. Dropped, it frees what the call held and books nothing.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) gateway: Arc<Gateway>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) deployment: Arc<Deployment>,
    pub(super) series: Arc<CallSeries>,
    pub(super) request_id: RequestId,
    pub(super) streaming: bool,
    pub(super) admission: Admission,
    pub(super) end: End,
    pub(super) metered: Metered,
    pub(super) held: Held,
}

/// A call's books.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) bill: Bill,
    /// The call's slot, which it keeps until its answer is delivered.
    pub(super) slot: Admission,
}

impl Settlement {
    /// Whether the bill depends on how long the prompt is, which nobody else tells.
    pub(super) fn rests_on_prompt(&self) -> bool {
        self.metered.usage.is_none() && billing::bill(self.end, &self.metered, &self.held).is_some()
    }

    /// Books what the call used. The prompt is held at so many tokens, which rest on the estimate where there is one.
    pub(super) fn book(self, prompt: Tokens, estimate: Option<&Estimate>) -> Option<Settled> {
        let Self { gateway, end, metered, series, .. } = &self;
        let held = Held { prompt, ..self.held };
        // Dropped unsettled, an admission frees its hold and books nothing.
        let bill = billing::bill(*end, metered, &held)?;
        let Bill { booked, source, corrected } = bill;
        if corrected {
            self.disbelieved();
        }
        let known = match source {
            Source::Upstream => {
                if !corrected {
                    self.compare(prompt, estimate, booked.usage.input);
                }
                series.settled_upstream.inc();
                Output::Known
            }
            Source::Counted | Source::Assumed => {
                series.settled_counted.inc();
                if source == Source::Counted && *end != End::PromptRead {
                    Output::Known
                } else {
                    Output::Assumed
                }
            }
        };
        let used = Used { tokens: booked.usage.total(), output: booked.usage.output, cost: booked.cost };
        let now = gateway.clock.now();
        let series = if self.streaming { &series.stream } else { &series.single };
        // Before the hold is freed: who sees nothing held finds all of it booked.
        series.add(&booked);
        let slot = self.admission.settle_keeping_slot(used, known, now);
        Some(Settled { bill, slot })
    }

    /// Tells of a count of upstream's that cannot be right.
    fn disbelieved(&self) {
        self.gateway.metrics.usage_out_of_bounds.inc();
        let reported = self.metered.usage.unwrap_or_default();
        tracing::warn!(
            request_id = %self.request_id,
            deployment = %self.deployment.name,
            prompt_tokens = reported.input.get(),
            completion_tokens = reported.output.get(),
            counted_completion_tokens = self.metered.seen.get(),
            "upstream's usage is out of bounds; the bound is booked"
        );
    }

    /// Compares what a prompt was held at with upstream's count, and learns from it.
    fn compare(&self, prompt: Tokens, estimate: Option<&Estimate>, input: Tokens) {
        self.series.estimate_shortfall.inc_by(input.saturating_sub(prompt).get());
        if let Some(estimate) = estimate
            && input > Tokens::ZERO
        {
            self.gateway.metrics.estimate_ratio.observe(ratio(prompt, input));
            self.tenant.account.learn(&self.deployment.name, estimate, input);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for a histogram")]
fn ratio(estimate: Tokens, actual: Tokens) -> f64 {
    estimate.get() as f64 / actual.get() as f64
}
