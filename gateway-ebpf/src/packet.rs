//! Reading a frame as far as its TCP header, and no further.
//!
//! Generic over where the bytes are, so that the very code that runs at XDP is tested on the host. What cannot be read for
//! certain is never guessed at: the caller passes it.

use crate::maps::Address;
use crate::source::Source;

/// A frame's bytes, from the destination MAC address on.
pub trait Frame {
    /// `N` bytes at an offset, or nothing where the frame ends sooner.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// Why a frame is none of the limits' business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Certainly no start of a TCP segment: another protocol, a later fragment, a packet still under way elsewhere.
    Foreign,
    /// Cut short, contradictory, or with more headers than are followed.
    Unreadable,
}

/// From where to where, in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Over IPv4.
    V4 {
        /// The sender.
        from: [u8; 4],
        /// The receiver.
        to: [u8; 4],
    },
    /// Over IPv6.
    V6 {
        /// The sender.
        from: [u8; 16],
        /// The receiver.
        to: [u8; 16],
    },
}

impl Path {
    /// Whom the packet is charged to; nothing where the sender is no possible source.
    #[must_use]
    #[inline(always)]
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::V4 { from, .. } => Some(Source::from_v4(*from)),
            Self::V6 { from, .. } => Source::from_v6(*from),
        }
    }

    /// Where the packet is going.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self) -> Address {
        match self {
            Self::V4 { to, .. } => Address::from_v4(*to),
            Self::V6 { to, .. } => Address::from_v6(*to),
        }
    }
}

/// The part of a TCP segment that the limits look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// From where to where.
    pub path: Path,
    /// The receiver's port.
    pub port: u16,
    /// Whether it can open a connection: a SYN without ACK (RFC 9293, 3.5), or the first fragment of a segment whose flags
    /// are in a later one, since what the kernel puts together may be a SYN.
    pub opening: bool,
}

/// Where the next header is and what it is, or why there is none to read.
struct Next {
    at: usize,
    /// Where the IP packet says that it ends; the frame may be longer (padding), or cut shorter.
    end: usize,
    fragment: bool,
}

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_AT: usize = 12;
const VLAN_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;

/// Customer and service tags: 802.1Q within 802.1ad.
const MAX_VLAN_TAGS: usize = 2;
/// A host may discard packets with more (RFC 8504, 5.3).
const MAX_EXTENSION_HEADERS: usize = 8;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_QINQ: [u8; 2] = [0x88, 0xa8];

const PROTOCOL_TCP: u8 = 6;
// Extension headers by protocol number (IANA, IPv6 Extension Header Types).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const FLAG_SYN: u8 = 0x02;
const FLAG_ACK: u8 = 0x10;

/// Reads a frame as far as its TCP ports and flags.
///
/// # Errors
/// What kind of frame it is when it holds no such thing.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Segment, Skip> {
    let (ethertype, at) = untagged(frame)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, at),
        ETHERTYPE_IPV6 => ipv6(frame, at),
        _ => Err(Skip::Foreign),
    }
}

/// The ethertype behind any tags, and where its payload begins.
#[inline(always)]
fn untagged<F: Frame + ?Sized>(frame: &F) -> Result<([u8; 2], usize), Skip> {
    let mut at = ETHERTYPE_AT;
    for _ in 0..=MAX_VLAN_TAGS {
        let ethertype = frame.bytes(at).ok_or(Skip::Unreadable)?;
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            return Ok((ethertype, at + (ETHERNET_BYTES - ETHERTYPE_AT)));
        }
        at += VLAN_BYTES;
    }
    Err(Skip::Unreadable)
}

/// RFC 791, 3.1.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, at: usize) -> Result<Segment, Skip> {
    let header: [u8; IPV4_BYTES] = frame.bytes(at).ok_or(Skip::Unreadable)?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let length = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    if first >> 4 != 4 || length < IPV4_BYTES || total < length {
        return Err(Skip::Unreadable);
    }
    let fragment = u16::from_be_bytes([f0, f1]);
    if protocol != PROTOCOL_TCP || fragment & 0x1fff != 0 {
        return Err(Skip::Foreign);
    }
    let path = Path::V4 { from: [s0, s1, s2, s3], to: [d0, d1, d2, d3] };
    tcp(frame, path, &Next { at: at + length, end: at + total, fragment: fragment & 0x2000 != 0 })
}

/// RFC 8200, 3.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, at: usize) -> Result<Segment, Skip> {
    let [first, _, _, _, l0, l1, next, _] = frame.bytes(at).ok_or(Skip::Unreadable)?;
    let from = frame.bytes(at + 8).ok_or(Skip::Unreadable)?;
    let to = frame.bytes(at + 24).ok_or(Skip::Unreadable)?;
    let payload = usize::from(u16::from_be_bytes([l0, l1]));
    // A payload length of 0 announces a jumbogram (RFC 2675), which no Ethernet carries.
    if first >> 4 != 6 || payload == 0 {
        return Err(Skip::Unreadable);
    }
    let start = at + IPV6_BYTES;
    tcp(frame, Path::V6 { from, to }, &extensions(frame, next, start, start + payload)?)
}

/// Follows extension headers to the TCP header (RFC 8200, 4).
#[inline(always)]
fn extensions<F: Frame + ?Sized>(
    frame: &F,
    mut protocol: u8,
    mut at: usize,
    end: usize,
) -> Result<Next, Skip> {
    let mut fragment = false;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if protocol == PROTOCOL_TCP {
            return Ok(Next { at, end, fragment });
        }
        let units = match protocol {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY => {
                frame.bytes::<4>(at).ok_or(Skip::Unreadable)?
            }
            _ => return Err(Skip::Foreign),
        };
        let [next, length, b2, b3] = units;
        at += match protocol {
            // The last four words of this header lie in its length's unit of 4 bytes (RFC 4302, 2.2).
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            FRAGMENT => {
                if u16::from_be_bytes([b2, b3]) & 0xfff8 != 0 {
                    return Err(Skip::Foreign);
                }
                fragment = fragment || b3 & 1 != 0;
                8
            }
            // With segments left the receiver named is not the last one.
            ROUTING if b3 != 0 => return Err(Skip::Foreign),
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
    }
    Err(Skip::Unreadable)
}

/// RFC 9293, 3.1.
#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, path: Path, next: &Next) -> Result<Segment, Skip> {
    let Next { at, end, fragment } = *next;
    let whole = at + TCP_BYTES <= end;
    if whole && let Some(header) = frame.bytes::<TCP_BYTES>(at) {
        let [_, _, p0, p1, _, _, _, _, _, _, _, _, _, flags, ..] = header;
        let opening = flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN;
        return Ok(Segment { path, port: u16::from_be_bytes([p0, p1]), opening });
    }
    if fragment && at + 4 <= end {
        let [_, _, p0, p1] = frame.bytes(at).ok_or(Skip::Unreadable)?;
        return Ok(Segment { path, port: u16::from_be_bytes([p0, p1]), opening: true });
    }
    Err(Skip::Unreadable)
}
