//! A Redis server for a fleet of gateways, and what can happen to one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::DEADLINE;
use crate::certificate::Authority;

/// A server that keeps nothing on disk; dropping it kills and reaps it.
#[derive(Debug)]
pub struct Redis {
    process: Option<Child>,
    directory: TempDir,
    port: u16,
    tls_port: Option<u16>,
}

/// A way to the server that takes its time.
#[derive(Debug)]
pub struct Delay {
    address: SocketAddr,
    milliseconds: Arc<AtomicU64>,
}

impl Redis {
    /// Starts one on a free port and waits until it answers.
    ///
    /// # Errors
    /// When there is no `redis-server` (Debian package redis-server), or it does not answer in time.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_on(None)
    }

    /// Starts one that listens for TLS too, with the authority's certificate.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub fn start_with_tls(authority: &Authority) -> anyhow::Result<Self> {
        Self::start_on(Some(authority))
    }

    fn start_on(tls: Option<&Authority>) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("redis-")?;
        let tls_port = tls.map(|_| free_port()).transpose()?;
        if let Some(authority) = tls {
            fs::write(directory.path().join("tls.crt"), authority.certificate_pem())?;
            fs::write(directory.path().join("tls.key"), authority.private_key_pem())?;
        }
        let mut redis = Self { process: None, directory, port: free_port()?, tls_port };
        redis.restart()?;
        Ok(redis)
    }

    /// Starts it again on its port after [`Redis::kill`]: with what it had at the last [`Redis::save`], or empty.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.spawn(&[])?;
        let deadline = Instant::now() + DEADLINE;
        while self.command("PING").is_err() {
            anyhow::ensure!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Like [`Redis::restart`], but it takes a millisecond for each key to load what was saved, and answers LOADING
    /// meanwhile; not waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_slowly(&mut self) -> anyhow::Result<()> {
        self.spawn(&["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"])
    }

    /// Puts so many keys there that are of no use.
    ///
    /// # Errors
    /// When it does not do it.
    pub fn fill(&self, keys: u32) -> anyhow::Result<()> {
        self.command(&format!("DEBUG POPULATE {keys}")).map(drop)
    }

    /// Has it write what it knows to its disk.
    ///
    /// # Errors
    /// When it does not do it.
    pub fn save(&self) -> anyhow::Result<()> {
        self.command("SAVE").map(drop)
    }

    fn spawn(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key"]);
        }
        let child = command
            .args(more)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server, of the Debian package redis-server")?;
        self.process = Some(child);
        Ok(())
    }

    /// What a configuration calls it over TLS, where it listens for that.
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        self.tls_port.map(|port| format!("rediss://127.0.0.1:{port}/0"))
    }

    /// What a configuration calls it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Sends a command and gives the first line of the answer.
    ///
    /// # Errors
    /// When there is no answer, or it is an error.
    pub fn command(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty() && !line.starts_with('-'), "{command}: {line}");
        Ok(line.trim_end().to_owned())
    }

    /// Makes it stand still (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it; all that it kept is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // Either fails only where it is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// A way to it that takes its time, as long as the runtime lives.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn delayed(&self) -> anyhow::Result<Delay> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let milliseconds = Arc::new(AtomicU64::new(0));
        let (delay, server) = (Arc::clone(&milliseconds), SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let delay = Arc::clone(&delay);
                tokio::spawn(async move { drop(pass(client, server, &delay).await) });
            }
        });
        Ok(Delay { address, milliseconds })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.process.as_ref().context("the server was killed")?;
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process without a number")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Delay {
    /// What a configuration calls the server behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Holds every answer back for so long from now on.
    pub fn set(&self, delay: Duration) {
        self.milliseconds.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

async fn pass(client: tokio::net::TcpStream, server: SocketAddr, delay: &AtomicU64) -> std::io::Result<()> {
    let server = tokio::net::TcpStream::connect(server).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = tokio::io::copy(&mut from_client, &mut to_server);
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok(0);
            }
            tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
            to_client.write_all(buffer.get(..read).unwrap_or_default()).await?;
        }
    };
    tokio::select! {
        result = there => result.map(drop),
        result = back => result.map(drop),
    }
}
