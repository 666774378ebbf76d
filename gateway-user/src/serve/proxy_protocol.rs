//! The PROXY protocol, versions 1 and 2 (`doc/proxy-protocol.txt` of the project that defined it): whom a trusted balancer speaks for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest header that is read: version 2 with its addresses and room for what balancers append.
const LONGEST: usize = 1024;
/// Between two looks at a header that is still on its way.
const NEXT_LOOK: Duration = Duration::from_millis(2);

/// Reads the header off a connection and tells its source; `None` where the balancer speaks for itself, as in a health
/// check. Nothing behind the header is read. The caller sets the deadline.
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
        let header = HeaderResult::parse(&buffer[..length]);
        if header.is_incomplete() && length < LONGEST {
            tokio::time::sleep(NEXT_LOOK).await;
            continue;
        }
        let (consumed, source) = match header {
            HeaderResult::V1(Ok(header)) => (header.header.len(), v1_source(&header.addresses)),
            HeaderResult::V2(Ok(header)) => (header.len(), v2_source(&header)),
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no PROXY header from a peer that must send one",
                ));
            }
        };
        stream.read_exact(&mut buffer[..consumed]).await?;
        return Ok(source);
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
