//! The packet's bytes: every packet pointer there is.

use aya_ebpf::programs::XdpContext;
use gateway_ebpf::packet::Frame;

/// The frame that the program was called with.
pub(super) struct Packet<'a>(pub(super) &'a XdpContext);

/// Farther than any header that is followed; a bound that the verifier can see.
const MAX_OFFSET: usize = 0x7fff;

impl Frame for Packet<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + at;
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: `start..start + N` lies within the packet, as checked above; a byte array needs no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }
}
