//! What a call's source is charged with: the call itself before anything else, and then what became of it.

use std::time::{Duration, Instant};

use http::Version;

use super::Visit;
use crate::kernel::{self, SourceVerdict};
use crate::limits::Refused;
use crate::names::TenantName;
use crate::reply::Refusal;
use crate::session::{OpenCall, Session};

/// For how long a connection reads nothing after a refusal.
#[must_use]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn begin(self, session: &Session) {
        if !self.0.is_zero() {
            session.activity.rest(self.0);
        }
    }
}

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

    /// Notes a refusal, where it is one that a source is answerable for. Where the source is refused faster than it may call,
    /// the answer waits. On HTTP/2 it does not: there the connection reads nothing for so long once it has gone, for whatever
    /// waits for an answer takes memory.
    pub(super) async fn refused(&self, refusal: &Refusal, open: &OpenCall) -> Pause {
        let Some(offence) = self.offence(refusal) else { return Pause(Duration::ZERO) };
        let wait = self.session.gateway.shedder.refused(self.session.caller, &offence, Instant::now());
        if self.version == Version::HTTP_2 {
            return Pause(wait);
        }
        if !wait.is_zero() {
            open.wait(wait).await;
        }
        Pause(Duration::ZERO)
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
            Refusal::SourceLimit { .. } => Some(kernel::Refusal::TooFast),
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
