//! The door: which connections are let in, before anything is spent on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::proxy_protocol;
use crate::gateway::Gateway;
use crate::kernel::{Caller, Guest, Seat};
use crate::metrics::ShedReason;
use crate::session::Activity;

/// Between two requests to make room: until then the connection that was asked has gone.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a newcomer keeps the others at the door whose source has all that could go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets connections in, `listen.max_connections` at once.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) gateway: Arc<Gateway>,
    /// One permit a connection.
    pub(super) connections: Arc<Semaphore>,
}

/// What a connection that was let in holds.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) activity: Arc<Activity>,
    /// None before a balancer has said for whom it speaks.
    pub(super) seat: Option<Seat>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Door {
    /// Lets a connection in, after others have made room for it where the process is full; nothing where its source has no
    /// right to more.
    pub(super) async fn enter(&self, peer: SocketAddr) -> Option<Entered> {
        let activity = Arc::new(Activity::new());
        let is_balancer = {
            let snapshot = self.gateway.snapshot();
            proxy_protocol::is_trusted(peer, &snapshot.config.listen.proxy_protocol_from)
        };
        let seat = if is_balancer {
            None
        } else {
            match seat(&self.gateway, Caller::Direct(peer.ip()), &activity) {
                Ok(seat) => Some(seat),
                Err(Shed) => return None,
            }
        };
        let permit = self.permit(seat.as_ref()).await?;
        Some(Entered { activity, seat, _permit: permit })
    }

    async fn permit(&self, newcomer: Option<&Seat>) -> Option<OwnedSemaphorePermit> {
        let asked = Instant::now();
        loop {
            if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
                return Some(permit);
            }
            self.gateway.shedder.make_room(newcomer);
            if let Ok(permit) = timeout(ASK_AGAIN, Arc::clone(&self.connections).acquire_owned()).await {
                return permit.ok();
            }
            if asked.elapsed() > PATIENCE && newcomer.is_some_and(Seat::has_others) {
                self.gateway.metrics.connection_shed(ShedReason::Full);
                return None;
            }
        }
    }
}

/// A connection is not let in, and that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shed;

/// Takes a place among its source's connections.
pub(super) fn seat(gateway: &Gateway, caller: Caller, activity: &Arc<Activity>) -> Result<Seat, Shed> {
    let guest: Arc<dyn Guest> = Arc::<Activity>::clone(activity);
    gateway.shedder.seat(caller, guest, std::time::Instant::now()).map_err(|reason| {
        gateway.metrics.connection_shed(reason);
        tracing::debug!(source = %caller.address(), reason = ?reason, "a connection is not let in");
        Shed
    })
}
