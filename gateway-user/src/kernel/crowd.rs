//! Who has how many connections open, and which of them goes where there is no place for another.
//!
//! A source makes room for its own: at its bound, the newcomer takes the place of one that is idle. Where the whole
//! process is full, the greediest source makes room. No source does so for one that has as many connections itself.
//!
//! No clock and no IO. What it knows is bounded by `listen.max_connections`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::ledger::Peer;
use crate::metrics::ShedReason;

/// A connection, as the crowd sees it.
pub(crate) trait Guest: fmt::Debug + Send + Sync {
    /// Since when it has no call; nothing where it has one, or was asked to go.
    fn idle(&self) -> Option<Idle>;
    /// Asks it to go, unless a call has begun meanwhile.
    fn give_way(&self, reason: ShedReason);
}

/// A connection without a call. The least goes first: whoever has shown no tenant's key, then whoever is idle for longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Idle {
    /// Whether a tenant's key was shown on it.
    pub(crate) known: bool,
    /// Since when.
    pub(crate) since: Instant,
}

/// Which connection of which source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    peer: Peer,
    number: u64,
}

/// A source has as many connections as it may, and a call on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

/// All connections, but for those of exempt networks.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    sources: HashMap<Peer, BTreeMap<u64, Arc<dyn Guest>>>,
    by_size: BTreeSet<(usize, Peer)>,
    next: u64,
}

impl Crowd {
    /// Gives a connection a place among the `most` of its source. Where all are taken, the first to go is asked to.
    pub(super) fn enter(&mut self, peer: Peer, guest: Arc<dyn Guest>, most: usize) -> Result<Place, Crowded> {
        if let Some(guests) = self.sources.get(&peer)
            && guests.len() >= most
        {
            let idle = guests.values().filter_map(|guest| Some((guest.idle()?, guest)));
            let (_, first) = idle.min_by_key(|(idle, _)| *idle).ok_or(Crowded)?;
            first.give_way(ShedReason::Concurrent);
        }
        let number = self.next;
        self.next += 1;
        let guests = self.sources.entry(peer).or_default();
        self.by_size.remove(&(guests.len(), peer));
        guests.insert(number, guest);
        self.by_size.insert((guests.len(), peer));
        Ok(Place { peer, number })
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, Place { peer, number }: Place) {
        let Some(guests) = self.sources.get_mut(&peer) else { return };
        let size = guests.len();
        if guests.remove(&number).is_none() {
            return;
        }
        self.by_size.remove(&(size, peer));
        if guests.is_empty() {
            self.sources.remove(&peer);
        } else {
            self.by_size.insert((guests.len(), peer));
        }
    }

    /// Asks one connection to go, for the sake of another. False where none may be asked.
    pub(super) fn make_room(&self, newcomer: Option<Place>) -> bool {
        let of = newcomer.map(|place| place.peer);
        let own = of.and_then(|peer| self.sources.get(&peer)).map_or(1, BTreeMap::len);
        let mut first: Option<(Idle, &Arc<dyn Guest>)> = None;
        let mut greediest = 0;
        for (size, peer) in self.by_size.iter().rev() {
            if *size < own || (first.is_some() && *size < greediest) {
                break;
            }
            // The first connection of a source is one too many for none.
            if *size == own && own > 1 && of != Some(*peer) {
                continue;
            }
            for (number, guest) in self.sources.get(peer).into_iter().flatten() {
                if newcomer == Some(Place { peer: *peer, number: *number }) {
                    continue;
                }
                if let Some(idle) = guest.idle()
                    && first.is_none_or(|(before, _)| idle < before)
                {
                    first = Some((idle, guest));
                    greediest = *size;
                }
            }
        }
        first.inspect(|(_, guest)| guest.give_way(ShedReason::Full)).is_some()
    }

    /// How many connections the source of a place has.
    pub(super) fn beside(&self, place: Place) -> usize {
        self.sources.get(&place.peer).map_or(0, BTreeMap::len)
    }

    /// Every source with the number of its connections.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (Peer, usize)> {
        self.sources.iter().map(|(peer, guests)| (*peer, guests.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_ebpf::source::Source;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Connection(Mutex<Option<Idle>>);

    impl Guest for Connection {
        fn idle(&self) -> Option<Idle> {
            *self.0.lock()
        }

        fn give_way(&self, _: ShedReason) {
            *self.0.lock() = None;
        }
    }

    /// What has been idle since so many seconds after the start.
    fn idle(start: Instant, seconds: u64, known: bool) -> Arc<Connection> {
        let since = start + Duration::from_secs(seconds);
        Arc::new(Connection(Mutex::new(Some(Idle { known, since }))))
    }

    fn busy() -> Arc<Connection> {
        Arc::new(Connection(Mutex::new(None)))
    }

    fn peer(last: u8) -> Peer {
        Peer::Direct(Source::from_v4([192, 0, 2, last]))
    }

    fn went(connection: &Connection) -> bool {
        connection.0.lock().is_none()
    }

    #[test]
    fn at_its_bound_a_source_makes_room_for_its_own() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let [known, old, new] = [idle(start, 0, true), idle(start, 1, false), idle(start, 2, false)];
        for connection in [&known, &old, &new] {
            crowd.enter(peer(1), Arc::<Connection>::clone(connection), 3).unwrap();
        }
        let other = idle(start, 0, false);
        crowd.enter(peer(2), Arc::<Connection>::clone(&other), 3).unwrap();
        for (newcomer, goes) in [(3, &old), (4, &new)] {
            assert!(!went(goes));
            crowd.enter(peer(1), idle(start, newcomer, true), 3).unwrap();
            assert!(went(goes));
        }
        assert!(!went(&known) && !went(&other));
    }

    #[test]
    fn a_source_whose_connections_all_have_calls_gets_no_more() {
        let mut crowd = Crowd::default();
        let place = crowd.enter(peer(1), busy(), 1).unwrap();
        assert_eq!(crowd.enter(peer(1), busy(), 1), Err(Crowded));
        crowd.leave(place);
        crowd.leave(place);
        assert_eq!(crowd.sizes().count(), 0);
        assert!(crowd.by_size.is_empty());
        crowd.enter(peer(1), busy(), 1).unwrap();
    }

    #[test]
    fn where_all_is_full_the_greediest_goes_first() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let mut enter = |last, connection: &Arc<Connection>| {
            crowd.enter(peer(last), Arc::<Connection>::clone(connection), 100).unwrap()
        };
        let honest = idle(start, 0, false);
        let greedy = [2, 1, 3].map(|seconds| idle(start, seconds, false));
        enter(1, &honest);
        for connection in &greedy {
            enter(2, connection);
        }
        let newcomer = enter(3, &busy());
        assert!(crowd.make_room(Some(newcomer)) && went(&greedy[1]) && !went(&greedy[0]));
        assert!(crowd.make_room(None) && went(&greedy[0]));
        // Asked as it was, it still has three; the next is asked for, and then nobody greedy is left.
        assert!(crowd.make_room(None) && went(&greedy[2]) && !went(&honest));
        assert!(crowd.make_room(Some(newcomer)) && went(&honest));
        assert!(!crowd.make_room(Some(newcomer)));
    }

    #[test]
    fn nobody_makes_room_for_one_who_has_as_many() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let honest = [idle(start, 0, false), idle(start, 1, false)];
        for connection in &honest {
            crowd.enter(peer(1), Arc::<Connection>::clone(connection), 100).unwrap();
        }
        let own = idle(start, 2, false);
        crowd.enter(peer(2), Arc::<Connection>::clone(&own), 100).unwrap();
        let newcomer = crowd.enter(peer(2), idle(start, 3, false), 100).unwrap();
        assert!(crowd.make_room(Some(newcomer)) && went(&own));
        assert!(!crowd.make_room(Some(newcomer)), "nor does the newcomer for itself");
        assert!(!honest.iter().any(|connection| went(connection)));
    }
}
