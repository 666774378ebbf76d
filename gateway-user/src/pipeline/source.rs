//! What a call's source is charged with: the call itself before anything else, and then what became of it.

use std::time::Instant;

use super::Visit;
use crate::kernel::{self, SourceVerdict};
use crate::limits::Refused;
use crate::names::TenantName;
use crate::reply::Refusal;

impl Visit<'_> {
    /// Charges the call, before anything is spent on it.
    pub(super) fn charge_source(&self) -> Result<(), Refusal> {
        match self.session.gateway.shedder.charge_call(self.session.caller, self.arrived) {
            SourceVerdict::Admit => Ok(()),
            SourceVerdict::Refuse { retry_after } => Err(Refusal::SourceLimit { wait: retry_after }),
        }
    }

    /// Notes that a tenant is served at this source.
    pub(super) fn accepted(&self, tenant: &TenantName) {
        self.session.gateway.shedder.accepted(self.session.caller, tenant);
    }

    /// Notes a refusal, where it is one that a source is answerable for.
    pub(super) fn refused(&self, refusal: &Refusal) {
        if let Some(offence) = self.offence(refusal) {
            self.session.gateway.shedder.refused(self.session.caller, &offence, Instant::now());
        }
    }

    /// A known tenant's mistakes are its own affair, and failures behind the gateway are no caller's.
    fn offence(&self, refusal: &Refusal) -> Option<kernel::Refusal> {
        match refusal {
            Refusal::MissingTenant | Refusal::InvalidKey => Some(kernel::Refusal::UnknownKey),
            Refusal::UnknownRoute | Refusal::BodyTimeout => Some(kernel::Refusal::MalformedHttp),
            // How long others' calls stay open is a guess, and a tenant with open calls is being served.
            Refusal::Limited(Refused::Concurrency { .. }) => None,
            Refusal::Limited(_) => Some(kernel::Refusal::Exhausted {
                tenant: self.tenant.clone()?,
                retry_after: refusal.wait(self.session.gateway.clock.now()),
            }),
            // Charged already.
            Refusal::SourceLimit { .. } => None,
            Refusal::InvalidRequest(_)
            | Refusal::BodyTooLarge(_)
            | Refusal::Overloaded
            | Refusal::UnknownDeployment
            | Refusal::DeploymentNotAllowed(_)
            | Refusal::NoBackend { .. }
            | Refusal::UpstreamError
            | Refusal::UpstreamTimeout(_)
            | Refusal::IdentityUnavailable
            | Refusal::ShuttingDown => None,
        }
    }
}
