//! A word in a map that every CPU changes.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use gateway_ebpf::gcra::Word;

/// A map value of eight bytes, changed atomically only. Valid until the program returns.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut u64);

impl Shared {
    /// Wraps what a map of `u64` values returned.
    #[inline(always)]
    pub(super) const fn new(value: *mut u64) -> Self {
        Self(value)
    }

    /// Adds one.
    #[inline(always)]
    pub(super) fn increment(self) {
        // SAFETY: a map value is aligned to 8 and stays valid until the program returns.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0, 1) };
    }

    /// Takes one off, unless there is none.
    #[inline(always)]
    pub(super) fn decrement(self) {
        for _ in 0..4 {
            let seen = self.load();
            if seen == 0 || self.replace(seen, seen - 1) {
                return;
            }
        }
    }
}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // LLVM 22 selects no instruction for an atomic load here; an aligned load of 8 bytes is one anyway.
        // SAFETY: a map value is aligned to 8 and stays valid until the program returns.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn replace(&self, seen: u64, next: u64) -> bool {
        // SAFETY: a map value is aligned to 8 and stays valid until the program returns.
        let (_, replaced) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, seen, next)
        };
        replaced
    }
}
