//! The maps: names, sizes, and how keys and values lie in memory.
//!
//! Who writes what decides what a flood can evict. A packet writes [`RECENT`] only; into [`KNOWN`] a source comes by a
//! completed handshake or by using up a whole burst; user space alone writes the rest. So a flood of packets with made-up
//! sources turns over [`RECENT`] and nothing else: who overran its rate, who holds connections and who is under penalty
//! stays known.

use crate::gcra::Rate;
use crate::source::Source;

/// One [`Limits`], written by user space.
pub const LIMITS: &str = "LIMITS";
/// Further local addresses that the gateway is reached at ([`Address`] to `u8`), written by user space.
pub const LOCAL: &str = "LOCAL";
/// Further exempt IPv4 networks, an LPM trie.
pub const EXEMPT_V4: &str = "EXEMPT_V4";
/// Exempt IPv6 networks, an LPM trie.
pub const EXEMPT_V6: &str = "EXEMPT_V6";
/// Sources under penalty ([`Source`] to its end in nanoseconds of the monotonic clock), written by user space.
pub const PENALTIES: &str = "PENALTIES";
/// Connection rates of sources within their limits ([`Source`] to a [`Rate`]'s word), written by packets; LRU.
pub const RECENT: &str = "RECENT";
/// Sources that have held a connection or overrun their rate ([`Source`] to [`Known`]); LRU.
pub const KNOWN: &str = "KNOWN";
/// Packets by verdict, one `u64` per CPU each.
pub const VERDICTS: &str = "VERDICTS";
/// Sampled drops ([`Event`]), a ring buffer.
pub const EVENTS: &str = "EVENTS";

/// How many local addresses are known.
pub const LOCAL_ENTRIES: u32 = 1024;
/// How many exempt networks of each family there may be.
pub const EXEMPT_ENTRIES: u32 = 1024;
/// How many sources can be under penalty at a time.
pub const PENALTY_ENTRIES: u32 = 1 << 16;
/// How many sources are remembered that only ever sent packets, within their limits.
pub const RECENT_ENTRIES: u32 = 1 << 17;
/// How many other sources are remembered.
pub const KNOWN_ENTRIES: u32 = 1 << 17;
/// The ring buffer of sampled events, in bytes.
pub const EVENTS_BYTES: u32 = 1 << 16;

/// What the programs enforce. Replaced as a whole when the configuration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    /// How fast a source may open connections.
    pub connections: Rate,
    /// How many connections a source may hold.
    pub held: u64,
    /// Which drops are sampled: those whose running number on their CPU has none of these bits.
    /// 1023 takes one in 1024; `u64::MAX` takes none.
    pub sample_mask: u64,
    /// The gateway's first local addresses; the rest are in [`LOCAL`]. Most machines have no more, and comparing costs a
    /// tenth of what looking up does. Unused ones are zero, which no packet is sent to.
    pub addresses: [Address; NEAR_ADDRESSES],
    /// The first exempt IPv4 networks, for the same reason; the rest are in [`EXEMPT_V4`]. Unused ones match nothing.
    pub exempt_v4: [NetworkV4; NEAR_NETWORKS],
    /// Whether there are more exempt IPv4 networks than these: 0 or 1.
    pub more_exempt_v4: u32,
    /// Whether there are exempt IPv6 networks: 0 or 1.
    pub any_exempt_v6: u32,
    /// The gateway's port; 0 before there is one, which matches no packet.
    pub port: u32,
    /// Whether there are more addresses than these: 0 or 1.
    pub more_addresses: u32,
}

const _: () = assert!(size_of::<Limits>() == 144 && align_of::<Limits>() == 8);

/// How many exempt IPv4 networks lie beside the limits.
pub const NEAR_NETWORKS: usize = 4;

/// An IPv4 network: address and mask with the bytes in network order, however the machine orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct NetworkV4 {
    address: u32,
    mask: u32,
}

const _: () = assert!(size_of::<NetworkV4>() == 8 && align_of::<NetworkV4>() == 4);

impl NetworkV4 {
    /// Holds no address at all.
    pub const NONE: Self = Self { address: 1, mask: 0 };

    /// A network by its first address and its mask, in network order.
    #[must_use]
    pub const fn new(address: [u8; 4], mask: [u8; 4]) -> Self {
        let mask = u32::from_ne_bytes(mask);
        Self { address: u32::from_ne_bytes(address) & mask, mask }
    }

    /// Whether an address in network order lies in the network.
    #[must_use]
    #[inline(always)]
    pub const fn holds(&self, address: [u8; 4]) -> bool {
        u32::from_ne_bytes(address) & self.mask == self.address
    }
}

/// What is remembered of a source that has held a connection or overrun its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Known {
    /// How many established connections it holds, as [`held`](crate::held) counts them: below zero is none.
    pub held: i64,
    /// Its connection [`Rate`]'s word.
    pub word: u64,
}

const _: () = assert!(size_of::<Known>() == 16 && align_of::<Known>() == 8);

/// How many local addresses lie beside the limits.
pub const NEAR_ADDRESSES: usize = 4;

/// A local address in network order; IPv4 in its mapped form (RFC 4291, 2.5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Address([u64; 2]);

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 8);

impl Address {
    /// No address: nothing is ever sent to it.
    pub const NONE: Self = Self([0; 2]);

    /// An IPv6 address in network order.
    #[must_use]
    #[inline(always)]
    pub const fn from_v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> Self {
        Self([u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])])
    }

    /// The mapped form of an IPv4 address in network order.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4([a, b, c, d]: [u8; 4]) -> Self {
        Self::from_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }
}

/// One drop of many, for a person who wants to see which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When, on the monotonic clock.
    pub at_ns: u64,
    /// How many packets its CPU had given that verdict by then.
    pub count: u64,
    /// Whose packet.
    pub source: Source,
    /// A [`Verdict`](crate::verdict::Verdict)'s index.
    pub verdict: u32,
    /// Keeps the size a multiple of the alignment.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Event>() == 32 && align_of::<Event>() == 8);

impl Event {
    /// Reads an event as the programs wrote it; nothing when it has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at_ns, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (verdict, rest) = rest.split_first_chunk()?;
        let reserved = u32::from_ne_bytes(rest.try_into().ok()?);
        Some(Self {
            at_ns: u64::from_ne_bytes(*at_ns),
            count: u64::from_ne_bytes(*count),
            source: Source::from_bytes(*source),
            verdict: u32::from_ne_bytes(*verdict),
            reserved,
        })
    }
}

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "the promise that these types are plain bytes is made where they are laid out"
)]
mod pod {
    use super::{Address, Event, Known, Limits};
    use crate::source::Source;

    // SAFETY: one integer, any pattern is valid.
    unsafe impl aya::Pod for Source {}
    // SAFETY: integers only, any pattern is valid, no padding (asserted above).
    unsafe impl aya::Pod for Address {}
    // SAFETY: integers only, any pattern is valid, no padding (asserted above).
    unsafe impl aya::Pod for Limits {}
    // SAFETY: integers only, any pattern is valid, no padding (asserted above).
    unsafe impl aya::Pod for Known {}
    // SAFETY: integers and bytes only, any pattern is valid, no padding (asserted above).
    unsafe impl aya::Pod for Event {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_and_none_holds_nothing() {
        let ten = NetworkV4::new([10, 1, 2, 3], [255, 0, 0, 0]);
        assert!(ten.holds([10, 9, 9, 9]) && !ten.holds([11, 1, 2, 3]));
        assert!(NetworkV4::new([0; 4], [0; 4]).holds([192, 0, 2, 1]));
        assert!(![[0; 4], [1, 0, 0, 0], [255; 4]].into_iter().any(|address| NetworkV4::NONE.holds(address)));
    }
}
