//! A server that sheds, and its clients.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::harness::DEADLINE;
use gateway_tests::netns::{Namespace, Net, SERVER_V4};
use gateway_user::kernel::{KernelConfig, Mode, Shedder, Status};

/// How long a client waits for what should come.
pub(crate) const PATIENCE: Duration = DEADLINE;
/// How long a client waits for what should not come.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(300);

/// A port of its own for each test: they share a control group, whose sockets are counted by port.
static NEXT_PORT: AtomicU16 = AtomicU16::new(18_443);

pub(crate) struct Scene {
    pub(crate) net: Net,
    pub(crate) shedder: Shedder,
    pub(crate) port: u16,
}

pub(crate) fn port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// Limits that are in nobody's way.
pub(crate) fn open() -> KernelConfig {
    let plenty = NonZeroU32::new(100_000).unwrap();
    KernelConfig {
        mode: Mode::Required,
        connections_per_second: plenty,
        connection_burst: plenty,
        concurrent_connections: plenty,
        calls_per_second: plenty,
        call_burst: plenty,
        exempt: Vec::new(),
        ..KernelConfig::default()
    }
}

pub(crate) fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

impl Scene {
    /// A server that accepts and answers.
    pub(crate) fn new(config: KernelConfig) -> Result<Self> {
        let (scene, listener) = Self::without_answers(config)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        Ok(scene)
    }

    /// A server whose connections the test accepts itself.
    pub(crate) fn without_answers(config: KernelConfig) -> Result<(Self, TcpListener)> {
        let net = Net::new()?;
        let port = port();
        let (shedder, listener) = net.server.run(|| {
            let listener = TcpListener::bind(("::", port))?;
            Ok((Shedder::attach(config, listener.local_addr()?)?, listener))
        })?;
        Ok((Self { net, shedder, port }, listener))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(SERVER_V4)), self.port)
    }

    pub(crate) fn connect(&self, from: &Namespace, patience: Duration) -> Result<TcpStream> {
        from.run(|| Ok(TcpStream::connect_timeout(&self.address(), patience)?))
    }

    /// Connects, is answered, and hangs up.
    pub(crate) fn call(&self, from: &Namespace) -> Result<()> {
        ask(&mut self.connect(from, PATIENCE)?, PATIENCE)
    }

    pub(crate) fn status(&self) -> Result<Status> {
        Ok(self.shedder.status_now(Instant::now())?)
    }

    /// As the gateway does once a second, from where its interfaces are.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.net.server.run(|| {
            self.shedder.maintain(Instant::now());
            Ok(())
        })
    }

    pub(crate) fn dropped(&self, verdict: &str) -> Result<u64> {
        Ok(self.status()?.packets[verdict])
    }
}

/// Sends a byte and waits for it to come back.
pub(crate) fn ask(stream: &mut TcpStream, patience: Duration) -> Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?")?;
    let mut answer = [0];
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(answer == *b"?");
    Ok(())
}

/// Waits for something that comes of itself, and fails when it does not.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is()? {
        ensure!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        pause(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits out a time. A park alone may end sooner: joining a thread leaves an unpark behind.
pub(crate) fn pause(time: Duration) {
    let started = Instant::now();
    while let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            return;
        }
    }
}
