//! Whom a packet is charged to.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A source as the limits see it: one IPv4 address, or one IPv6 /64, the smallest block that a site is given
/// (RFC 6177), so that stepping through the addresses of one's own network gains nothing.
///
/// Eight bytes in network order, in one word: the programs look it up in maps several times a packet. An IPv6 source is its
/// prefix; an IPv4 source is its address behind [`V4_MARK`], which begins no prefix that a packet can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Source(u64);

const _: () = assert!(size_of::<Source>() == 8 && align_of::<Source>() == 8);

/// The first half of every IPv4 source: inside IPv6's multicast block (RFC 4291, 2.7), which is never a source.
const V4_MARK: [u8; 4] = [0xff; 4];

/// The first twelve bytes of an IPv4 address in IPv6 clothes (RFC 4291, 2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Source {
    /// The source of an IPv4 address in network order.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4([a, b, c, d]: [u8; 4]) -> Self {
        let [m0, m1, m2, m3] = V4_MARK;
        Self::from_bytes([m0, m1, m2, m3, a, b, c, d])
    }

    /// The source of an IPv6 address in network order: its /64, or the IPv4 address that it maps.
    ///
    /// Nothing for a multicast address, which no packet may have as its source (RFC 4291, 2.7).
    #[must_use]
    #[inline(always)]
    pub fn from_v6(address: [u8; 16]) -> Option<Self> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, .., a, b, c, d] = address;
        if address.starts_with(&MAPPED) {
            return Some(Self::from_v4([a, b, c, d]));
        }
        (p0 != 0xff).then_some(Self::from_bytes([p0, p1, p2, p3, p4, p5, p6, p7]))
    }

    /// A source as it lies in a map.
    #[must_use]
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }

    /// The source that an address belongs to; nothing for a multicast address.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(Self::from_v4(v4.octets())),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }

    /// The address that stands for the source: the IPv4 address itself, or the first of the /64.
    #[must_use]
    pub fn address(self) -> IpAddr {
        let [p0, p1, p2, p3, a, b, c, d] = self.0.to_ne_bytes();
        if [p0, p1, p2, p3] == V4_MARK {
            return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        }
        IpAddr::V6(Ipv6Addr::from([p0, p1, p2, p3, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]))
    }
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.address() {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString as _;

    fn source(text: &str) -> Source {
        Source::from_address(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn every_address_of_a_64_is_one_source() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_source() {
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_ne!(source("::192.0.2.7"), source("192.0.2.7"));
    }

    #[test]
    fn a_multicast_address_is_no_source() {
        assert_eq!(Source::from_address("ffff:ffff::1".parse().unwrap()), None);
        assert_eq!(Source::from_address("ff02::1".parse().unwrap()), None);
    }

    #[test]
    fn a_source_reads_as_people_write_it() {
        assert_eq!(source("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(source("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }
}
