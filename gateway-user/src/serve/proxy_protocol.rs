//! The PROXY protocol, versions 1 and 2 (`doc/proxy-protocol.txt` of the project that defined it): whom a trusted balancer speaks for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use memchr::memmem;
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest header that is read: version 2 with its addresses and room for what balancers append.
const LONGEST: usize = 1024;
/// How a line of version 1 begins, and how long it is at most (2.1 there).
const V1_START: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;
/// Between two looks at a header that is still on its way.
const NEXT_LOOK: Duration = Duration::from_millis(2);

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A whole header.
    Whole {
        /// Its bytes.
        length: usize,
        /// Whom the balancer speaks for; `None` where it speaks for itself, as in a health check.
        source: Option<IpAddr>,
    },
    /// The start of one.
    Incomplete,
    /// None.
    Invalid,
}

impl Header {
    /// Reads the header that these bytes begin with.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        // The library takes some lines that are cut short for wrong, and some that are wrong for cut short.
        let is_line = bytes.starts_with(V1_START) || V1_START.starts_with(bytes);
        if is_line && memmem::find(bytes, b"\r\n").is_none() {
            return if bytes.len() < V1_LONGEST { Self::Incomplete } else { Self::Invalid };
        }
        match HeaderResult::parse(bytes) {
            HeaderResult::V1(Ok(header)) if header.header.ends_with("\r\n") => {
                Self::Whole { length: header.header.len(), source: v1_source(&header.addresses) }
            }
            HeaderResult::V2(Ok(header)) => Self::Whole { length: header.len(), source: v2_source(&header) },
            HeaderResult::V2(Err(error)) if error.is_incomplete() => Self::Incomplete,
            HeaderResult::V1(_) | HeaderResult::V2(Err(_)) => Self::Invalid,
        }
    }
}

/// Reads the header off a connection and tells its source. Nothing behind the header is read. The caller sets the
/// deadline.
///
/// # Errors
/// When there is no such header.
pub(super) async fn source(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut buffer = [0; LONGEST];
    loop {
        let length = stream.peek(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Header::parse(&buffer[..length]) {
            Header::Whole { length, source } => {
                stream.read_exact(&mut buffer[..length]).await?;
                return Ok(source);
            }
            Header::Incomplete if length < LONGEST => tokio::time::sleep(NEXT_LOOK).await,
            Header::Incomplete | Header::Invalid => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no PROXY header from a peer that must send one",
                ));
            }
        }
    }
}

fn v1_source(addresses: &v1::Addresses) -> Option<IpAddr> {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
        v1::Addresses::Tcp6(tcp) => Some(tcp.source_address.into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<IpAddr> {
    match (&header.command, &header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some(ip.source_address.into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some(ip.source_address.into()),
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    }
}

/// Whether a peer is one whose header is believed.
pub(super) fn is_trusted(peer: SocketAddr, networks: &[ipnet::IpNet]) -> bool {
    let ip = peer.ip().to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_arrive_in_any_pieces() {
        let address = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb];
        let second = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &address].concat();
        for header in [b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".as_slice(), &second] {
            for end in 0..header.len() {
                assert_eq!(Header::parse(&header[..end]), Header::Incomplete, "the first {end} bytes");
            }
            let behind = [header, b"\x16\x03\x01\r\n"].concat();
            let source = Some(IpAddr::from([192, 0, 2, 1]));
            assert_eq!(Header::parse(&behind), Header::Whole { length: header.len(), source });
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        for bytes in
            [b"GET / HTTP/1.1\r\n".as_slice(), b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\x5a", b"PUT"]
        {
            assert_eq!(Header::parse(bytes), Header::Invalid, "{bytes:?}");
        }
        for start in [b"PROXY TCP4 ".as_slice(), b"PROXY UNKNOWN\r"] {
            let endless = [start, &[b'1'; 100]].concat();
            assert_eq!(Header::parse(&endless), Header::Invalid, "{endless:?}");
        }
    }
}
