//! A running gateway.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Uri};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::{Client, Protocol, Reply};
use super::log::Log;
use super::metrics::Metrics;
use super::raw::RawConnection;
use super::site::Site;
use super::wait_until;

/// A gateway process; dropping it kills and reaps it.
#[derive(Debug)]
pub struct Gateway {
    // Before the site, so that the process is gone when its directory goes.
    process: Process,
    site: Site,
    log: Log,
    address: SocketAddr,
    admin: SocketAddr,
}

#[derive(Debug)]
struct Process(Child);

impl Gateway {
    pub(super) fn start(site: Site) -> anyhow::Result<Self> {
        let serve = site.command(&["serve"])?;
        Self::run(site, serve)
    }

    /// Runs a command that becomes the gateway of that site.
    pub(super) fn run(site: Site, mut serve: Command) -> anyhow::Result<Self> {
        let serve = serve.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = serve.spawn().context("the gateway's binary")?;
        let stderr = child.stderr.take();
        let process = Process(child);
        let log = Log::default();
        log.collect(stderr.context("a child without its pipe")?)?;
        let listening = log.wait_for("listening")?;
        let address = |field: &str| -> anyhow::Result<SocketAddr> {
            let text = listening.get(field).and_then(Value::as_str);
            text.with_context(|| format!("no {field} in {listening}"))?
                .parse()
                .with_context(|| field.to_owned())
        };
        Ok(Self { address: address("address")?, admin: address("admin")?, process, site, log })
    }

    /// Where callers connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its directory and commands.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// What it logged so far.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// A new connection.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect(&self, protocol: Protocol) -> anyhow::Result<Client> {
        // Boxed, because tests make many of these large futures part of their own.
        Box::pin(Client::connect(self.address, self.site.authority(), protocol)).await
    }

    /// A new connection from one of this host's addresses, such as 127.0.0.2.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect_from(&self, source: IpAddr, protocol: Protocol) -> anyhow::Result<Client> {
        Box::pin(Client::connect_from(source, self.address, self.site.authority(), protocol)).await
    }

    /// A TLS connection from one of this host's addresses, for bytes that no HTTP library would send.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect_raw_from(
        &self,
        source: IpAddr,
        protocols: &[&[u8]],
    ) -> anyhow::Result<RawConnection> {
        Box::pin(RawConnection::connect_from(source, self.address, self.site.authority(), protocols)).await
    }

    /// A TLS connection for bytes that no HTTP library would send; offers `protocols` by ALPN.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect_raw(&self, protocols: &[&[u8]]) -> anyhow::Result<RawConnection> {
        Box::pin(RawConnection::connect(self.address, self.site.authority(), protocols)).await
    }

    /// Makes one call on a connection of its own, over HTTP/1.1.
    ///
    /// # Errors
    /// When there is no answer; an error status is one.
    pub async fn call(&self, request: Request<Bytes>) -> anyhow::Result<Reply> {
        self.connect(Protocol::Http1).await?.send(request).await
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it never does.
    pub async fn ready(&self) -> anyhow::Result<()> {
        wait_until("the gateway is ready", async || {
            self.admin_page("/readyz").await.is_ok_and(|reply| reply.status == 200)
        })
        .await
    }

    /// Reads a page of the admin port, such as `/metrics`.
    ///
    /// # Errors
    /// When there is no answer; an error status is one.
    pub async fn admin_page(&self, path: &'static str) -> anyhow::Result<Reply> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from_static(path);
        Box::pin(Client::plain(self.admin)).await?.send(request).await
    }

    /// Reads the metrics.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let reply = self.admin_page("/metrics").await?;
        anyhow::ensure!(reply.status.is_success(), "/metrics answered {}", reply.status);
        Ok(Metrics::parse(reply.text()?))
    }

    /// One metric as it is now: the sum of all series that have these labels, and zero where there are none.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        Ok(self.metrics().await?.sum(name, labels))
    }

    /// The process, for signals and `/proc`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// The memory that it holds now, in bytes (`VmRSS`, proc(5)).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// Sends it a signal, such as [`Signal::HUP`].
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end, which something else causes. Blocks the thread.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(mut self) -> anyhow::Result<(Site, ExitStatus)> {
        anyhow::ensure!(
            self.log.wait_for_end(),
            "the gateway did not end; its log:\n{}",
            self.log.lines().join("\n")
        );
        let status = self.process.0.wait()?;
        Ok((self.site, status))
    }

    /// Asks it to end, with SIGTERM, and waits until it did. Blocks the thread: calls that shall drain meanwhile need
    /// [`Gateway::signal`] and [`Gateway::wait`].
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(self) -> anyhow::Result<(Site, ExitStatus)> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Kills it with SIGKILL, as a node that loses its power would; the site can start another.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(self) -> anyhow::Result<Site> {
        self.signal(Signal::KILL)?;
        Ok(self.wait()?.0)
    }
}

impl Process {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid =
            i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a process without a number")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only where the process is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
