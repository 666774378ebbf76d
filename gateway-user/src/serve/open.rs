//! What is counted of an open connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;

use super::door::Entered;

/// Counts a connection among all that are open, and among its worker's, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    among: Arc<AtomicUsize>,
    /// `gateway_connections`.
    connections: Gauge,
    /// Its places among all, and among its source's.
    pub(super) entered: Entered,
}

impl OpenConnection {
    /// Counts it.
    pub(super) fn new(among: Arc<AtomicUsize>, connections: Gauge, entered: Entered) -> Self {
        among.fetch_add(1, Ordering::Relaxed);
        connections.inc();
        Self { among, connections, entered }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.among.fetch_sub(1, Ordering::Relaxed);
        self.connections.dec();
    }
}
