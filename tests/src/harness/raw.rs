//! A TLS connection for bytes that no HTTP library would send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::in_time;
use crate::certificate::Authority;

/// One TLS connection.
#[derive(Debug)]
pub struct RawConnection {
    stream: TlsStream<TcpStream>,
}

impl RawConnection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When either fails.
    pub async fn connect(
        address: SocketAddr,
        authority: &Authority,
        protocols: &[&[u8]],
    ) -> anyhow::Result<Self> {
        let tcp = in_time("connecting", TcpStream::connect(address)).await??;
        tcp.set_nodelay(true)?;
        Self::over(tcp, authority, protocols).await
    }

    /// The same from one of this host's addresses, such as 127.0.0.2: another source, as the gateway sees it.
    ///
    /// # Errors
    /// When either fails.
    pub async fn connect_from(
        source: IpAddr,
        address: SocketAddr,
        authority: &Authority,
        protocols: &[&[u8]],
    ) -> anyhow::Result<Self> {
        let tcp = connect_from(source, address).await?;
        Self::over(tcp, authority, protocols).await
    }

    /// Shakes hands on a connection of the caller's.
    ///
    /// # Errors
    /// When that fails.
    pub async fn over(tcp: TcpStream, authority: &Authority, protocols: &[&[u8]]) -> anyhow::Result<Self> {
        let connector = TlsConnector::from(Arc::new(authority.client_config(protocols)?));
        let address = tcp.peer_addr()?;
        let handshake = connector.connect(ServerName::IpAddress(address.ip().into()), tcp);
        Ok(Self { stream: in_time("the TLS handshake", handshake).await?? })
    }

    /// Sends bytes at once.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        in_time("writing", self.stream.write_all(bytes)).await??;
        Ok(in_time("flushing", self.stream.flush()).await??)
    }

    /// Reads what has come, at least a byte, or nothing where the peer closed.
    ///
    /// # Errors
    /// When nothing comes in time, or the connection was reset.
    pub async fn read(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        let length = in_time("reading", self.stream.read(&mut buffer)).await??;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Reads until `mark` came or the peer closed, and gives everything.
    ///
    /// # Errors
    /// When neither happens in time.
    pub async fn read_until(&mut self, mark: &str) -> anyhow::Result<String> {
        let mut all = Vec::new();
        while !all.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            let piece = self.read().await?;
            if piece.is_empty() {
                break;
            }
            all.extend(piece);
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// Reads until the peer closes, in whatever way, and gives everything.
    ///
    /// # Errors
    /// When it does not close in time.
    pub async fn read_to_end(&mut self) -> anyhow::Result<String> {
        let mut all = Vec::new();
        // A reset, or a close without TLS's goodbye, is an end too.
        drop(in_time("reading to the end", self.stream.read_to_end(&mut all)).await?);
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// The stream itself, for what else a test does to it.
    pub fn into_inner(self) -> TlsStream<TcpStream> {
        self.stream
    }
}

/// A TCP connection from one of this host's addresses.
///
/// # Errors
/// When there is none in time.
pub async fn connect_from(source: IpAddr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    let tcp = in_time("connecting", socket.connect(to)).await??;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
