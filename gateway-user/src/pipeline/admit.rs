//! Letting a call in: its prompt is counted only where that can change a decision.

use std::sync::Arc;

use bytes::Bytes;

use super::demand::{self, Demand};
use super::{Caller, Visit};
use crate::buffers::Reserved;
use crate::call::{Admitted, Call, Prompt, Uncounted, corrected, count_prompt, prompt_bound};
use crate::gateway::{Deployment, Tenant};
use crate::limits::{Admission, Ask, Ceiling, Grant, Refused};
use crate::reply::Refusal;
use crate::tokens::{Counted, Estimate};
use crate::units::Tokens;

/// A request that is to be let in.
pub(super) struct Asking<'a> {
    pub(super) demand: &'a Demand<'a>,
    pub(super) deployment: &'a Arc<Deployment>,
    /// The caller's own body.
    pub(super) body: &'a Bytes,
    /// The most tokens of its prompt, where its bytes tell.
    pub(super) bound: Option<Tokens>,
    /// The body's memory.
    pub(super) reserved: Reserved,
}

/// A call that was let in, with what.
pub(super) struct LetIn {
    pub(super) call: Call,
    pub(super) grant: Grant,
    /// The body's memory, where the call does not have it.
    pub(super) reserved: Option<Reserved>,
}

impl Visit<'_> {
    /// Lets a call in, at its prompt's bytes where there is much more room than that, else at its tokens.
    pub(super) async fn admit(&self, caller: Caller, asking: Asking<'_>) -> Result<LetIn, Refusal> {
        let Asking { demand, deployment, body, bound, reserved } = asking;
        let gateway = &self.session.gateway;
        let Caller { tenant, slot } = caller;
        let (api, limits) = (demand.api, tenant.limits());
        let bound = match bound {
            Some(bound) => bound,
            None => {
                let bound = prompt_bound(gateway, &tenant, deployment, api, body).await;
                not_elsewhere(&tenant, &bound)?;
                corrected(&tenant, deployment, &bound)
            }
        };
        let ask = demand.ask(bound);
        self.lease(&tenant, &ask).await;
        let by_bytes = match Admission::admit_by_bytes(&tenant.account, limits, &ask, gateway.clock.now()) {
            Ok(by_bytes) => by_bytes,
            Err(refused) => return Err(self.limited(&tenant, refused).await),
        };
        let (prompt, reserved, (admission, grant)) = match by_bytes {
            Some(admitted) => {
                let request = Uncounted { api, body: body.clone(), reserved };
                (Prompt::Uncounted { bound, request, counting: None }, None, admitted)
            }
            None => {
                let estimate = self.count(&tenant, demand, deployment, body).await?;
                let tokens = corrected(&tenant, deployment, &estimate);
                let ask = demand.ask(tokens);
                self.lease(&tenant, &ask).await;
                match Admission::admit(&tenant.account, limits, &ask, gateway.clock.now()) {
                    Ok(admitted) => (Prompt::Counted { tokens, estimate }, Some(reserved), admitted),
                    Err(refused) => return Err(self.limited(&tenant, refused).await),
                }
            }
        };
        let call = Call::new(Admitted {
            gateway: Arc::clone(gateway),
            tenant,
            slot,
            deployment: Arc::clone(deployment),
            request_id: self.request_id,
            arrived: self.arrived,
            streaming: demand.streams(),
            answers: demand.envelope.answers(),
            prompt,
            admission,
            reports: self.session.worker.reports.clone(),
        });
        Ok(LetIn { call, grant, reserved })
    }

    /// Counts a prompt, or finds out that it is refused however long it is, which takes much less.
    async fn count(
        &self,
        tenant: &Tenant,
        demand: &Demand<'_>,
        deployment: &Arc<Deployment>,
        body: &Bytes,
    ) -> Result<Estimate, Refusal> {
        let gateway = &self.session.gateway;
        let (account, limits) = (&tenant.account, tenant.limits());
        let room = account.prompt_room(limits, &deployment.prices, gateway.clock.now());
        // What was learned may halve an estimate.
        let most = match limits.ceiling {
            Ceiling::Strict => room,
            Ceiling::Soft => room.saturating_mul(2),
        };
        match count_prompt(gateway, tenant, deployment, demand.api, body, most).await {
            Counted::Whole(estimate) => return Ok(estimate),
            Counted::Beyond(estimate) => {
                let ask = demand.ask(corrected(tenant, deployment, &estimate));
                if let Some(refused) = account.refusal(limits, &ask, gateway.clock.now()) {
                    return Err(self.limited(tenant, refused).await);
                }
            }
        }
        // Meanwhile there is more room.
        let counted = count_prompt(gateway, tenant, deployment, demand.api, body, Tokens::MAX).await;
        let (Counted::Whole(estimate) | Counted::Beyond(estimate)) = counted;
        Ok(estimate)
    }

    /// Leases what a call asks for, where budgets are shared.
    async fn lease(&self, tenant: &Arc<Tenant>, ask: &Ask) {
        if let Some(fleet) = &self.session.gateway.fleet
            && let Some(asking) = fleet.cover(tenant, ask)
        {
            asking.await;
        }
    }

    /// A limit's refusal, given once the books that it rests on are kept: it must hold after a crash, too.
    pub(super) async fn limited(&self, tenant: &Tenant, refused: Refused) -> Refusal {
        if let Some(store) = &self.session.gateway.store {
            store.keep(&tenant.account).await;
        }
        Refusal::Limited(refused)
    }
}

/// Refuses input that is not in the request where its tenant may not name any.
fn not_elsewhere(tenant: &Tenant, prompt: &Estimate) -> Result<(), Refusal> {
    if prompt.is_boundless() && tenant.limits().ceiling == Ceiling::Strict {
        let what = "a file or an item that upstream holds";
        return Err(Refusal::InvalidRequest(demand::stored_input(what)));
    }
    if prompt.is_kept_upstream() && !tenant.keeps_state() {
        return Err(Refusal::InvalidRequest(demand::stored_state("the id of a file or an item")));
    }
    Ok(())
}
