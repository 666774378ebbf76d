//! Which connections are let in, as far as user space can say: the same bounds that the kernel programs hold, a little
//! later. Where the programs are not attached, and for clients behind a balancer, these are the only ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crowd::{Crowded, Guest, Place};
use super::ledger::Peer;
use super::{Caller, Shedder};
use crate::metrics::ShedReason;

/// A connection's place among those of its source, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Whose connection it is.
    pub(crate) caller: Caller,
    /// How long it must wait so that its source connects no faster than it may.
    pub(crate) wait: Duration,
    /// None for one of an exempt network.
    place: Option<Place>,
    shedder: Arc<Shedder>,
}

impl Shedder {
    /// Lets a connection in, or says which bound of its source it breaks.
    pub(crate) fn seat(
        self: &Arc<Self>,
        caller: Caller,
        guest: Arc<dyn Guest>,
        now: Instant,
    ) -> Result<Seat, ShedReason> {
        let seat = |wait, place| Seat { caller, wait, place, shedder: Arc::clone(self) };
        let Some(peer) = self.peer(caller) else {
            return Ok(seat(Duration::ZERO, None));
        };
        let now_ns = self.clock.nanos(now);
        let wait = self.ledger(peer).lock().connect(peer, now_ns).ok_or(ShedReason::Rate)?;
        let place = self.crowd.lock().enter(peer, guest, self.most_connections(peer));
        Ok(seat(wait, Some(place.map_err(|Crowded| ShedReason::Concurrent)?)))
    }

    /// How many connections a source may have. The kernel counts those that are established, and so lets in a few more when
    /// several are under way: not for user space to take back.
    fn most_connections(&self, peer: Peer) -> usize {
        let config = self.config.load();
        let under_way = match peer {
            Peer::Direct(_) if self.is_attached() => config.connection_burst.get(),
            Peer::Direct(_) | Peer::Proxied(_) => 0,
        };
        let most = config.concurrent_connections.get().saturating_add(under_way);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Asks one connection to go, so that there is a place for a newcomer, whose source may not be known yet. False where
    /// none may be asked.
    pub(crate) fn make_room(&self, newcomer: Option<&Seat>) -> bool {
        self.crowd.lock().make_room(newcomer.and_then(|seat| seat.place))
    }

    /// The connections of each source, direct or proxied.
    pub(super) fn connected(&self) -> Vec<(Peer, usize)> {
        self.crowd.lock().sizes().collect()
    }
}

impl Seat {
    /// Whether its source has other connections.
    pub(crate) fn has_others(&self) -> bool {
        self.place.is_some_and(|place| self.shedder.crowd.lock().beside(place) > 1)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shedder.crowd.lock().leave(place);
        }
    }
}
