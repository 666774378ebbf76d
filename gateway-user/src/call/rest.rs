//! What is left of a call once it is over, perhaps for longer than the call itself.

use std::sync::Arc;

use super::corrected;
use super::prompt::Uncounted;
use super::report::{Report, Reports};
use super::settlement::{Settled, Settlement};
use crate::gateway::Tenant;
use crate::limits::Admission;
use crate::supervise::panics::{Scope, contained};
use crate::tokens::Estimate;

/// What is left of a call once it is over.
pub(super) struct Rest {
    pub(super) report: Report,
    pub(super) reports: Reports,
    /// Its slot, where it has one still.
    pub(super) slot: Option<Admission>,
    pub(super) tenant: Arc<Tenant>,
}

impl Rest {
    /// Counts the prompt, which the settlement waits for and nobody else.
    pub(super) fn settle(mut self, settlement: Settlement, request: &Uncounted) {
        let facts = &settlement.deployment.facts;
        let estimate = contained(Scope::Call, || request.count(&settlement.gateway, facts))
            .unwrap_or_else(|| Estimate::of_bytes(request.api, &request.body));
        let prompt = corrected(&settlement.tenant, &settlement.deployment, &estimate);
        if let Some(Settled { bill, slot }) = settlement.book(prompt, Some(&estimate)) {
            self.report.bill = Some(bill);
            self.slot = Some(slot);
        }
        self.finish();
    }

    /// Reports the call, and gives back what it has still.
    pub(super) fn finish(self) {
        let Self { report, reports, slot, tenant } = self;
        reports.add(report);
        // Last: who sees that no call is open finds all of them counted.
        drop(slot);
        tenant.inflight.dec();
    }
}
