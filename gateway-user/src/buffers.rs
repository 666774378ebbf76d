//! The memory for request bodies and held answers: one bound for the process, shared fairly by its tenants.
//!
//! A tenant may hold no more than it leaves free. Alone it gets half of the bound; beside others that hold as much as they
//! may, each gets an equal part, and one more always finds room (Choudhury and Hahne, "Dynamic queue length thresholds",
//! 1998).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// The bound, and how much of it is in use.
#[derive(Debug)]
pub struct Buffers {
    limit: AtomicUsize,
    used: AtomicUsize,
    shown: Gauge,
}

/// What one tenant holds of it, in bytes.
#[derive(Debug, Default)]
pub struct Share(AtomicUsize);

/// Bytes reserved for a tenant, given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    buffers: Arc<Buffers>,
    share: Arc<Share>,
    bytes: usize,
}

/// There is no room for more, in the process or in the tenant's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory is left for request bodies and held answers")]
pub struct NoRoom;

impl Buffers {
    /// Room for `limit` bytes; `shown` tells how many are in use.
    #[must_use]
    pub fn new(limit: usize, shown: Gauge) -> Arc<Self> {
        Arc::new(Self { limit: limit.into(), used: AtomicUsize::new(0), shown })
    }

    /// Changes the bound. What is beyond a smaller one stays until it is given back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Nothing yet, to be grown for a tenant.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, share: &Arc<Share>) -> Reserved {
        Reserved { buffers: Arc::clone(self), share: Arc::clone(share), bytes: 0 }
    }
}

impl Reserved {
    /// Reserves `more` bytes.
    ///
    /// # Errors
    /// When the tenant would hold more than is left free. Nothing has changed then.
    pub fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        // Both counts are taken first, so that what several threads see at once is too much rather than too little.
        let used = self.buffers.used.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let share = self.share.0.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.bytes += more;
        self.buffers.show(more, false);
        if share > self.buffers.limit.load(Ordering::Relaxed).saturating_sub(used) {
            self.shrink(more);
            return Err(NoRoom);
        }
        Ok(())
    }

    /// Whether the tenant holds more than half of what it may.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        let share = self.share.0.load(Ordering::Relaxed);
        let free = self
            .buffers
            .limit
            .load(Ordering::Relaxed)
            .saturating_sub(self.buffers.used.load(Ordering::Relaxed));
        share.saturating_mul(2) > free
    }

    /// Gives back `less` bytes, or all that is reserved if that is fewer.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.bytes);
        self.bytes -= less;
        self.share.0.fetch_sub(less, Ordering::Relaxed);
        self.buffers.used.fetch_sub(less, Ordering::Relaxed);
        self.buffers.show(less, true);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Buffers {
    fn show(&self, change: usize, falls: bool) {
        let change = i64::try_from(change).unwrap_or(i64::MAX);
        if falls {
            self.shown.dec_by(change);
        } else {
            self.shown.inc_by(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(buffers: &Arc<Buffers>, share: &Arc<Share>) -> Reserved {
        let mut reserved = buffers.reserve(share);
        while reserved.grow(1).is_ok() {}
        reserved
    }

    #[test]
    fn no_tenant_holds_more_than_it_leaves_free() {
        let buffers = Buffers::new(1200, Gauge::default());
        let shares: [Arc<Share>; 3] = Default::default();
        let first = grown(&buffers, &shares[0]);
        assert_eq!(first.bytes, 600, "half for one alone");
        let second = grown(&buffers, &shares[1]);
        assert_eq!(second.bytes, 300, "half of what is left");
        assert_eq!(
            grown(&buffers, &shares[0]).bytes,
            0,
            "another body of the same tenant is none the better for it"
        );
        assert_eq!(grown(&buffers, &shares[2]).bytes, 150, "a newcomer finds room");
        drop(first);
        assert_eq!(grown(&buffers, &shares[1]).bytes, 300, "what was given back is shared anew");
    }

    #[test]
    fn who_holds_more_than_half_of_what_it_may_is_told_so() {
        let buffers = Buffers::new(1200, Gauge::default());
        let shares: [Arc<Share>; 2] = Default::default();
        let (mut first, mut second) = (buffers.reserve(&shares[0]), buffers.reserve(&shares[1]));
        first.grow(400).unwrap();
        assert!(!first.is_scarce());
        first.grow(1).unwrap();
        assert!(first.is_scarce() && !second.is_scarce());
        second.grow(300).unwrap();
        assert!(second.is_scarce(), "beside others it may hold less");
    }

    #[test]
    fn all_is_given_back() {
        let shown = Gauge::default();
        let buffers = Buffers::new(1000, shown.clone());
        let share = Arc::default();
        let mut reserved = buffers.reserve(&share);
        reserved.grow(400).unwrap();
        assert_eq!(reserved.grow(101), Err(NoRoom));
        assert_eq!((reserved.bytes, shown.get()), (400, 400), "a refusal takes nothing");
        reserved.shrink(150);
        assert_eq!(shown.get(), 250);
        reserved.shrink(1000);
        assert_eq!(shown.get(), 0);
        reserved.grow(500).unwrap();
        drop(reserved);
        assert_eq!((shown.get(), buffers.used.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_smaller_bound_holds_for_what_comes_next() {
        let buffers = Buffers::new(1000, Gauge::default());
        let (share, other) = (Arc::default(), Arc::default());
        let mut reserved = buffers.reserve(&share);
        reserved.grow(500).unwrap();
        buffers.set_limit(400);
        assert_eq!(buffers.reserve(&other).grow(1), Err(NoRoom));
        reserved.shrink(400);
        assert_eq!(buffers.reserve(&other).grow(150), Ok(()));
    }
}
