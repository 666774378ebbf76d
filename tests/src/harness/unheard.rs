//! An address on which nobody listens.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// An address of loopback that refuses connections, and that nobody else is given while this value is there. Who knows
/// it may listen there, too.
#[derive(Debug)]
pub struct Unheard {
    address: SocketAddr,
    _socket: Socket,
}

impl Unheard {
    /// Takes a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // A listener that sets this too, as those of the standard library do, may share the port (socket(7)).
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address =
            socket.local_addr()?.as_socket().ok_or_else(|| anyhow::anyhow!("no IPv4 address was bound"))?;
        Ok(Self { address, _socket: socket })
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
