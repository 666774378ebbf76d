//! The attacks, and what all of them share: where they go, as whom, and from which addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{bodies, connections, frames, unread};
use crate::certificate::trusting;

/// One way to be a bad neighbour.
#[derive(Debug)]
pub(super) struct Attack {
    /// Its name, for `--only`.
    pub(super) name: &'static str,
    /// What it does, for the table.
    pub(super) what: &'static str,
    /// The tier of the tenant whose key it has.
    pub(super) tier: &'static str,
    /// The addresses that it comes from.
    pub(super) sources: u8,
    /// Attacks until it is dropped.
    pub(super) start: fn(Target) -> Attacking,
}

/// An attack under way, until it is dropped.
type Attacking = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Every attack.
pub(super) const ATTACKS: [Attack; 20] = [
    Attack {
        name: "prompts-near",
        what: "prompts of 605 KB, near the tenant's minute",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::words(605_000))),
    },
    Attack {
        name: "prompts-over",
        what: "prompts of 16 MB in words",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::words(bodies::LONGEST))),
    },
    Attack {
        name: "one-letter",
        what: "prompts of 16 MB of one letter",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::one_letter())),
    },
    Attack {
        name: "escapes",
        what: "prompts of 16 MB of escapes",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::escapes())),
    },
    Attack {
        name: "tools",
        what: "16 MB of `\"tools\":[{},…]`",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::tools())),
    },
    Attack {
        name: "numbers",
        what: "16 MB of `\"prompt\":[1,…]`",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::numbers())),
    },
    Attack {
        name: "inputs",
        what: "16 MB of `\"input\":[{},…]`",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::inputs())),
    },
    Attack {
        name: "keys",
        what: "millions of equal keys",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::flood(target, bodies::keys())),
    },
    Attack {
        name: "unfinished",
        what: "90 bodies of 15 MB that do not end",
        tier: "counted",
        sources: MANY,
        start: |target| Box::pin(bodies::unfinished(target)),
    },
    Attack {
        name: "held",
        what: "1,000 answers of 1 MB on HTTP/2, window 0",
        tier: "vast",
        sources: MANY,
        start: |target| Box::pin(unread::held(target)),
    },
    Attack {
        name: "slow-readers",
        what: "200 streams read at 2.5 KB/s",
        tier: "vast",
        sources: MANY,
        start: |target| Box::pin(unread::slow(target)),
    },
    Attack {
        name: "idle",
        what: "more idle connections than the process takes, one address",
        tier: "limited",
        sources: 1,
        start: |target| Box::pin(connections::idle(target)),
    },
    Attack {
        name: "handshakes",
        what: "new TLS connections without a pause",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(connections::handshakes(target)),
    },
    Attack {
        name: "hellos",
        what: "the same, given up after the ClientHello",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(connections::hellos(target)),
    },
    Attack {
        name: "wrong-keys",
        what: "calls with a wrong key without a pause",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(bodies::calls(target.with_key("wrong"), 32)),
    },
    Attack {
        name: "hammer",
        what: "64 callers of a tenant at its limit",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(bodies::calls(target, 64)),
    },
    Attack {
        name: "settings",
        what: "HTTP/2 SETTINGS on 8 connections",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(frames::flood(target, frames::SETTINGS)),
    },
    Attack {
        name: "pings",
        what: "HTTP/2 PING on 8 connections",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(frames::flood(target, frames::PING)),
    },
    Attack {
        name: "pings-unread",
        what: "the same, whose answers are not read",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(frames::unread(target, frames::PING)),
    },
    Attack {
        name: "resets",
        what: "HTTP/2 calls, each reset at once, on 8 connections",
        tier: "limited",
        sources: MANY,
        start: |target| Box::pin(frames::resets(target)),
    },
];

/// Where an attack goes, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) gateway: SocketAddr,
    pub(super) key: String,
    http1: Arc<rustls::ClientConfig>,
    http2: Arc<rustls::ClientConfig>,
    sources: u8,
    connections: Arc<AtomicU64>,
    tried: Arc<AtomicU64>,
}

impl Target {
    pub(super) fn new(
        gateway: SocketAddr,
        key: String,
        authority: &str,
        sources: u8,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            gateway,
            key,
            http1: Arc::new(trusting(authority, &[b"http/1.1"])?),
            http2: Arc::new(trusting(authority, &[b"h2"])?),
            sources,
            connections: Arc::default(),
            tried: Arc::default(),
        })
    }

    pub(super) fn with_key(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }

    /// Counts what was tried.
    pub(super) fn tries(&self, count: u64) {
        self.tried.fetch_add(count, Ordering::Relaxed);
    }

    /// What was tried so far.
    pub(super) fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    /// The first bytes of a TLS connection.
    pub(super) fn hello(&self) -> anyhow::Result<Vec<u8>> {
        let mut hello = Vec::new();
        rustls::ClientConnection::new(Arc::clone(&self.http1), self.name())?.write_tls(&mut hello)?;
        Ok(hello)
    }

    /// A connection from the next of the attack's addresses. `receive_buffer` is the kernel's, where it is to be small.
    pub(super) async fn tcp(&self, receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) % u64::from(self.sources);
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap_or_default() + 1);
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(SocketAddr::from((source, 0)))?;
        let stream = socket.connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        // A close is a reset, which leaves no port in TIME_WAIT.
        stream.set_zero_linger()?;
        Ok(stream)
    }

    /// A TLS connection for HTTP/1.1.
    pub(super) async fn http1(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.shake(self.tcp(None).await?, &self.http1).await
    }

    /// A TLS connection for HTTP/1.1 whose kernel holds little that is not read.
    pub(super) async fn narrow(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.shake(self.tcp(Some(8 << 10)).await?, &self.http1).await
    }

    /// A TLS connection for HTTP/2.
    pub(super) async fn http2(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.shake(self.tcp(None).await?, &self.http2).await
    }

    async fn shake(
        &self,
        tcp: TcpStream,
        config: &Arc<rustls::ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(config)).connect(self.name(), tcp).await
    }

    fn name(&self) -> ServerName<'static> {
        ServerName::IpAddress(self.gateway.ip().into())
    }
}

/// So many attackers at the same time, each of whom begins again when it was stopped.
pub(super) async fn again<F>(
    target: Target,
    attackers: usize,
    one: impl Fn(Target) -> F + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut running = JoinSet::<()>::new();
    for _ in 0..attackers {
        let (target, one) = (target.clone(), one.clone());
        running.spawn(async move {
            loop {
                // That a gateway closes a connection on an attacker is what it should do.
                drop(one(target.clone()).await);
                sleep(RESPITE).await;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended?;
    }
    Ok(())
}

/// Enough that each of them stays below what a source may do.
const MANY: u8 = 64;
/// So that an attacker who is refused does not burn its own core.
const RESPITE: Duration = Duration::from_millis(2);
