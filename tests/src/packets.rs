//! Packets by the byte: what a test says is what is in them, right or wrong.

/// TCP flags (RFC 9293, 3.1).
pub const SYN: u8 = 0x02;
/// Acknowledges.
pub const ACK: u8 = 0x10;
/// Resets.
pub const RST: u8 = 0x04;
/// Has no more to send.
pub const FIN: u8 = 0x01;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethertype of a customer's tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// Ethertype of a service's tag (802.1ad).
pub const QINQ: u16 = 0x88a8;

/// Protocol numbers (IANA).
pub const HOP_BY_HOP: u8 = 0;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// Authentication header.
pub const AUTHENTICATION: u8 = 51;
/// IPv6 destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// IPv4 flag: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// The Ethernet address that [`ethernet`] sends to.
pub const RECEIVER: &str = "02:00:00:00:00:01";

/// An Ethernet frame to [`RECEIVER`]: tags from the outermost, then what they carry.
#[must_use]
pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(100_u16.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet that claims exactly its own length. `options` are padded to whole words; `fragment` is flags and offset.
#[must_use]
pub fn ipv4(
    from: [u8; 4],
    to: [u8; 4],
    options: &[u8],
    fragment: u16,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let words = 5 + options.len().div_ceil(4);
    let total = words * 4 + payload.len();
    let mut packet = vec![0x40 | low_byte(words), 0];
    packet.extend(low_half(total).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(options);
    packet.resize(words * 4, 0);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet that claims exactly its own length.
#[must_use]
pub fn ipv6(from: [u8; 16], to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(low_half(payload.len()).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

/// A hop-by-hop or destination options header of `units` further eight bytes, all padding.
#[must_use]
pub fn options(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let padding = 6 + usize::from(units) * 8;
    let mut header = vec![next, units, 1, low_byte(padding - 2)];
    header.resize(2 + padding, 0);
    header.extend(payload);
    header
}

/// A routing header with segments left.
#[must_use]
pub fn routing(next: u8, segments_left: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 2, 4, segments_left];
    header.resize(24, 0);
    header.extend(payload);
    header
}

/// An authentication header with twelve bytes of check value.
#[must_use]
pub fn authentication(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 4];
    header.resize(24, 0);
    header.extend(payload);
    header
}

/// A fragment header; the offset counts eights.
#[must_use]
pub fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0, 7]);
    header.extend(payload);
    header
}

/// A TCP header without options or data.
#[must_use]
pub fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut header = 40_000_u16.to_be_bytes().to_vec();
    header.extend(port.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// Fills in a TCP header's checksum for an IPv4 packet, so that the kernel takes it.
pub fn seal(segment: &mut [u8], from: [u8; 4], to: [u8; 4]) {
    segment[16..18].fill(0);
    let mut covered = [from, to].concat();
    covered.extend([0, TCP]);
    covered.extend(low_half(segment.len()).to_be_bytes());
    covered.extend(&*segment);
    let sum = checksum(&covered);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// A flood's frames: SYNs from one address and all its ports, each of which the kernel would take.
#[must_use]
pub fn syns(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<Vec<u8>> {
    (1024..=u16::MAX)
        .map(|own_port| {
            let mut segment = tcp(port, SYN);
            segment[..2].copy_from_slice(&own_port.to_be_bytes());
            seal(&mut segment, from, to);
            ethernet(&[], IPV4, &ipv4(from, to, &[], 0, TCP, &segment))
        })
        .collect()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !low_half(sum as usize)
}

#[expect(clippy::cast_possible_truncation, reason = "cut to the field's width, as a hostile sender would")]
const fn low_byte(value: usize) -> u8 {
    value as u8
}

#[expect(clippy::cast_possible_truncation, reason = "cut to the field's width, as a hostile sender would")]
const fn low_half(value: usize) -> u16 {
    value as u16
}
