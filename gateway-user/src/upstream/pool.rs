//! Idle connections of one worker, by backend.
//!
//! A connection is registered with the reactor of the worker that opened it, so each worker keeps its own: taking one
//! and giving it back never crosses threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::Connection;

/// Idle connections kept for one backend by one worker; more are closed.
const MOST_IDLE: usize = 512;
/// Azure's front ends close a connection that was idle for some minutes. Ours go long before, so that a request
/// rarely meets a close that is already on its way.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// Idle connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Shelf>>,
}

/// The idle connections to one scheme, host and port, the longest idle first.
#[derive(Debug)]
struct Shelf {
    authority: Arc<str>,
    connections: VecDeque<(Instant, Box<Connection>)>,
}

impl Pool {
    /// An open connection to there, the most recently used first.
    pub(crate) fn take(&self, authority: &str) -> Option<Box<Connection>> {
        loop {
            let (_, mut connection) = {
                let mut shelves = self.idle.lock();
                shelves.iter_mut().find(|shelf| *shelf.authority == *authority)?.connections.pop_back()?
            };
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next call, if it is in a state to carry one.
    pub(crate) fn put(&self, authority: &Arc<str>, mut connection: Box<Connection>) {
        if !connection.is_reusable() {
            return;
        }
        let mut shelves = self.idle.lock();
        let place = shelves.iter().position(|shelf| shelf.authority == *authority).unwrap_or_else(|| {
            shelves.push(Shelf { authority: Arc::clone(authority), connections: VecDeque::new() });
            shelves.len() - 1
        });
        let connections = &mut shelves[place].connections;
        if connections.len() >= MOST_IDLE {
            connections.pop_front();
        }
        connections.push_back((Instant::now(), connection));
    }

    /// Closes what has been idle for too long. A place with no connection left is forgotten.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.lock().retain_mut(|shelf| {
            let stale =
                |(since, _): &(Instant, Box<Connection>)| now.saturating_duration_since(*since) >= IDLE_FOR;
            while shelf.connections.front().is_some_and(stale) {
                shelf.connections.pop_front();
            }
            !shelf.connections.is_empty()
        });
    }
}
