//! Connecting to a host by whichever of its addresses answers first: Happy Eyeballs (RFC 8305).
//!
//! The system's resolver has sorted the addresses (RFC 6724) and answers for both families at once, so that only sections 4
//! and 5 are left: alternate the families, and start the next attempt while the one before is still under way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::tcp::RECEIVE_BUFFER;

/// From the start of one attempt to the start of the next, where neither failed by then (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a connection to a host by its name or address.
///
/// # Errors
/// When the name has no address, or with the last failure when no address accepts. It sets no deadline.
pub(super) async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await?.collect();
    first_to_connect(addresses, connect).await
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before it connects: the handshake says how far its window can open.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(address).await
}

/// The first connection that succeeds. The other attempts are cancelled then.
async fn first_to_connect<S, C>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> C,
) -> io::Result<S>
where
    S: Send + 'static,
    C: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut waiting = alternating(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(connect(address));
        }
        tokio::select! {
            biased;
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(failed))) => error = failed,
                Some(Err(aborted)) => error = io::Error::other(aborted),
                None => return Err(error),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// The addresses in an order that alternates the families, and begins with the resolver's first choice.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ranked: Vec<_> = first.into_iter().enumerate().chain(second.into_iter().enumerate()).collect();
    // Stable: of equal rank the first family stays before the second.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};
    use tokio::time::{Instant, timeout};

    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Connects as a scripted network does: port 1 answers never, port 2 refuses, port `1000 + n` accepts after `n` ms.
    async fn scripted(address: SocketAddr) -> io::Result<SocketAddr> {
        match address.port() {
            1 => pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => {
                sleep(Duration::from_millis(u64::from(port) - 1000)).await;
                Ok(address)
            }
        }
    }

    async fn race<const N: usize>(texts: [&str; N]) -> (io::Result<SocketAddr>, Duration) {
        let begun = Instant::now();
        let racing = timeout(Duration::from_secs(3600), first_to_connect(addresses(texts), scripted));
        (racing.await.unwrap(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_costs_the_stagger() {
        let (connected, took) = race(["[::1]:1", "127.0.0.1:1000"]).await;
        assert_eq!((connected.unwrap().port(), took), (1000, ATTEMPT_DELAY));
        let (connected, took) = race(["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1000"]).await;
        assert_eq!((connected.unwrap().port(), took), (1000, 2 * ATTEMPT_DELAY), "of one family too");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_no_time() {
        let (connected, took) = race(["[::1]:2", "127.0.0.1:1000"]).await;
        assert_eq!((connected.unwrap().port(), took), (1000, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_wins_where_the_next_is_slower() {
        let (connected, took) = race(["[::1]:1300", "127.0.0.1:1200"]).await;
        assert_eq!((connected.unwrap().port(), took), (1300, Duration::from_millis(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_accepts_the_last_failure_is_told() {
        let (failed, _) = race(["[::1]:2", "127.0.0.1:2"]).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (failed, _) = race([]).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_families_take_turns() {
        let sorted = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1", "127.0.0.2:1"];
        let turns = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1"];
        assert_eq!(alternating(addresses(sorted)), addresses(turns));
    }

    #[tokio::test]
    async fn a_full_listener_hides_no_other_address() {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        // Linux queues one connection more than the backlog, and drops the packets that would open another.
        let _queued = std::net::TcpStream::connect(silent).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let open = listener.local_addr().unwrap();

        let connecting = first_to_connect(vec![silent, open], TcpStream::connect);
        let connected = timeout(Duration::from_secs(60), connecting).await.unwrap().unwrap();
        assert_eq!(connected.peer_addr().unwrap(), open);
    }

    #[tokio::test]
    async fn the_kernel_holds_little_that_is_not_read() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(crate::tcp::tests::is_bounded(&connect_tcp("127.0.0.1", port).await.unwrap()));
    }
}
