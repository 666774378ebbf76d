//! A word in a map that every CPU changes.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use gateway_ebpf::gcra::Word;
use gateway_ebpf::held::Count;

/// A map value of eight bytes, changed atomically only. Valid until the program returns.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut u64);

impl Shared {
    /// Wraps the address of a map's word of eight bytes.
    #[inline(always)]
    pub(super) const fn new(value: *mut u64) -> Self {
        Self(value)
    }
}

impl Count for Shared {
    #[inline(always)]
    fn add(&self, change: i64) {
        // SAFETY: a map value is aligned to 8 and stays valid until the program returns.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0, change as u64) };
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
