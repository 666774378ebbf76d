//! The whole gateway on the real kernel: one caller abuses it, the other must not notice.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::harness::Reply;
use gateway_tests::netns::UPLINK;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::flood::stampede;
use crate::lifetime::{loaded, relatives, xdp_program};
use crate::scene::{IMPATIENCE, PATIENCE, pause, until};
use crate::stage::{Stage, gaps, within};

const WRONG_KEY: &str = "aoai_0000000000000000000000000000000000000000000";

/// How long a refusal said to wait.
fn told(reply: &Reply) -> Result<Duration> {
    let milliseconds: u64 = reply.header("retry-after-ms").context("not told when to come back")?.parse()?;
    let seconds: u64 = reply.header("retry-after").context("no retry-after")?.parse()?;
    ensure!(seconds == milliseconds.div_ceil(1000), "{seconds} s and {milliseconds} ms");
    Ok(Duration::from_millis(milliseconds))
}

/// What is left of the abusive source's penalty, in seconds.
fn penalty_left(status: &Value) -> Result<f64> {
    let top = status["top"].as_array().context("no sources")?;
    let source = top.iter().find(|source| source["source"] == "10.9.0.2");
    source.and_then(|source| source["penaltySeconds"].as_f64()).with_context(|| format!("{status:#}"))
}

pub(crate) fn a_flood_of_calls_is_shed_until_the_time_told() -> Result<()> {
    let stage = Stage::new("calls_per_second = 5\ncall_burst = 50\n")?;
    stage.beside(&stage.net.honest, || {
        let abusive = &stage.net.abusive;
        let flood = stage.flood(abusive, &stage.abusive.primary, 1000)?;
        let over = flood.over()?;
        let (last, served) = flood.replies.split_last().context("no answer at all")?;
        ensure!(flood.shed && served.len() >= 50, "{} answers", flood.replies.len());
        ensure!(served.iter().all(|reply| reply.status == 200));
        ensure!(last.status == 429 && last.error().as_deref() == Some("source_limit"), "{last:?}");
        ensure!(last.header("x-quota-reason") == Some("source_limit"));
        let wait = told(last)?;
        ensure!(wait > Duration::from_millis(9500) && wait <= Duration::from_secs(10), "{wait:?}");
        // Whoever comes back as told is served.
        pause((over + wait).saturating_duration_since(Instant::now()));
        stage.served(abusive, &stage.abusive.primary).context("back as told")?;
        ensure!(stage.packets("dropped_penalty")? > 0);
        ensure!(stage.count("gateway_requests_total", ("reason", "source_limit"))? >= 1);
        until("the penalty is taken out", || {
            Ok(stage.count("gateway_kernel_sources", ("state", "penalised"))? == 0)
        })
    })
}

pub(crate) fn over_ipv6_a_64_is_one_source() -> Result<()> {
    let stage = Stage::over_ipv6("calls_per_second = 5\ncall_burst = 50\n")?;
    let abusive = &stage.net.abusive;
    abusive.ip(&format!("addr add fd00:9:0:2:ffff::1/128 dev {UPLINK} nodad"))?;
    stage.beside(&stage.net.honest, || {
        let flood = stage.flood(abusive, &stage.abusive.primary, 1000)?;
        let over = flood.over()?;
        let (last, served) = flood.replies.split_last().context("no answer at all")?;
        ensure!(flood.shed && served.len() >= 50, "{} answers", flood.replies.len());
        ensure!(served.iter().all(|reply| reply.status == 200));
        ensure!(last.error().as_deref() == Some("source_limit"), "{last:?}");
        let status = stage.status()?;
        let top = status["top"].as_array().context("no sources")?;
        let penalised = top.iter().find(|source| source["penaltySeconds"].as_f64().is_some());
        ensure!(penalised.is_some_and(|source| source["source"] == "fd00:9:0:2::/64"), "{status:#}");
        let neighbour = within(abusive, async || {
            let socket = tokio::net::TcpSocket::new_v6()?;
            socket.bind("[fd00:9:0:2:ffff::1]:0".parse()?)?;
            Ok(timeout(IMPATIENCE, socket.connect(stage.address())).await.is_ok())
        })?;
        ensure!(!neighbour, "another address of the same /64");
        let v4: SocketAddr = format!("10.9.0.1:{}", stage.address().port()).parse()?;
        abusive
            .run(|| Ok(TcpStream::connect_timeout(&v4, PATIENCE)?))
            .context("by IPv4 it is another source")?;
        pause((over + told(last)?).saturating_duration_since(Instant::now()));
        stage.served(abusive, &stage.abusive.primary).context("back as told")
    })
}

pub(crate) fn a_flood_of_bad_keys_is_shed_and_let_in_again() -> Result<()> {
    let stage = Stage::new("calls_per_second = 5000\ncall_burst = 30\n")?;
    stage.beside(&stage.net.honest, || {
        let abusive = &stage.net.abusive;
        let flood = stage.flood(abusive, WRONG_KEY, 1000)?;
        ensure!(flood.shed, "never shed");
        // The first is told to wait, a burst more is forgiven, and the next is the last to be answered.
        let most = 32 * (1 + flood.gaps());
        ensure!((32..=most).contains(&flood.replies.len()), "{} answers", flood.replies.len());
        ensure!(flood.replies.iter().all(|reply| reply.status == 401));
        let dropped = stage.packets("dropped_penalty")?;
        let connected = within(abusive, async || {
            Ok(timeout(IMPATIENCE, tokio::net::TcpStream::connect(stage.address())).await.is_ok())
        })?;
        ensure!(!connected, "every packet of the source is dropped");
        until("its silence is the penalty's", || Ok(stage.packets("dropped_penalty")? > dropped))?;
        ensure!(stage.count("gateway_kernel_sources", ("state", "penalised"))? == 1);
        let left = penalty_left(&stage.status()?)?;
        ensure!((0.0..=10.0).contains(&left), "{left}");
        pause(Duration::from_secs_f64(left));
        stage.served(abusive, &stage.abusive.primary).context("once the penalty is over")
    })
}

pub(crate) fn an_exhausted_tenant_that_hammers_is_shed_until_it_may_come_back() -> Result<()> {
    let stage = Stage::new("calls_per_second = 5000\ncall_burst = 30\n")?;
    stage.beside(&stage.net.honest, || {
        let abusive = &stage.net.abusive;
        let flood = stage.flood(abusive, &stage.spent.primary, 1000)?;
        ensure!(flood.shed && flood.replies.len() == 3 + 32, "{} answers", flood.replies.len());
        let last = flood.replies.last().context("no answer")?;
        ensure!(last.status == 429 && last.error().as_deref() == Some("rate_limit"), "{last:?}");
        // The penalty began between these two moments, and what is left of it is told between the next two.
        let &(asked, answered) = flood.times.last().context("no answer")?;
        let most = told(last)?.saturating_sub(answered.elapsed()).as_secs_f64();
        let left = penalty_left(&stage.status()?)?;
        let least = told(last)?.saturating_sub(asked.elapsed()).as_secs_f64();
        ensure!(
            least - 1.5 < left && left < most + 1.5,
            "{left} s left, of {least} to {most} that were told"
        );

        let table = stage.command(&["kernel", "status"])?;
        let table = String::from_utf8(table.stdout)?;
        for part in [UPLINK, "(native)", "5000 a second, 30 at once", "1 under penalty", "10.9.0.2"] {
            ensure!(table.contains(part), "no {part:?} in\n{table}");
        }
        let json = stage.command(&["kernel", "status", "--format", "json"])?;
        penalty_left(&serde_json::from_slice(&json.stdout)?)?;

        let release = stage.command(&["kernel", "release", "10.9.0.2"])?;
        ensure!(release.status.success(), "{release:?}");
        ensure!(String::from_utf8_lossy(&release.stdout) == "10.9.0.2 is released\n", "{release:?}");
        let reply = stage.call(abusive, &stage.spent.primary).context("after its release")?;
        ensure!(reply.status == 429, "its budget is still used up: {}", reply.status);
        stage.served(abusive, &stage.abusive.primary)?;
        let again = stage.command(&["kernel", "release", "10.9.0.2/32"])?;
        ensure!(String::from_utf8_lossy(&again.stdout) == "10.9.0.2 is under no penalty\n", "{again:?}");
        Ok(())
    })
}

pub(crate) fn behind_one_address_the_honest_are_served_whatever_the_others_do() -> Result<()> {
    // Refusals come no faster than calls may, and a few calls are served beside them.
    let stage = Stage::new("calls_per_second = 50\ncall_burst = 20\n")?;
    let [abusive, honest] = stage.net.behind_one_address()?;
    stage.beside(&honest, || {
        for key in [WRONG_KEY, &stage.spent.primary] {
            let flood = stage.flood(&abusive, key, 400)?;
            ensure!(!flood.shed && flood.replies.len() == 400, "shed after {}", flood.replies.len());
            let reasons: Vec<_> = flood.replies.iter().filter_map(Reply::error).collect();
            ensure!(!reasons.iter().any(|reason| reason == "source_limit"), "{reasons:?}");
        }
        ensure!(stage.packets("dropped_penalty")? == 0);
        let sources = &stage.status()?["sources"];
        ensure!(sources["penalised"] == 0, "{sources}");
        Ok(())
    })
}

pub(crate) fn broken_handshakes_and_requests_count() -> Result<()> {
    let stage = Stage::new("calls_per_second = 5000\ncall_burst = 10\nconnections_per_second = 1000\n")?;
    let abusive = &stage.net.abusive;
    for offence in [Offence::NoTls, Offence::NoHttp1, Offence::NoHttp2, Offence::BrokenHttp2] {
        stage.beside(&stage.net.honest, || {
            // The counts may be a second old, and the last offence was dropped for too.
            pause(Duration::from_secs(1));
            let dropped = stage.packets("dropped_penalty")?;
            let (times, shed) = within(abusive, async || {
                let mut times = Vec::new();
                while times.len() < 100 {
                    let began = Instant::now();
                    match stage.unless_shed(dropped, offence.commit(&stage)).await? {
                        Some(done) => done?,
                        None => return Ok((times, true)),
                    }
                    times.push((began, Instant::now()));
                }
                Ok((times, false))
            })?;
            let (before, most) = (times.len(), 14 + 12 * gaps(&times));
            ensure!(
                shed && (12..=most).contains(&before),
                "{offence:?}: {before} before it was shed: {shed}"
            );
            let release = stage.command(&["kernel", "release", "10.9.0.2"])?;
            ensure!(String::from_utf8_lossy(&release.stdout).ends_with("is released\n"), "{release:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Bytes that are not what was agreed on.
#[derive(Debug, Clone, Copy)]
enum Offence {
    NoTls,
    NoHttp1,
    /// No client preface (RFC 9113, 3.4).
    NoHttp2,
    /// SETTINGS whose length is no multiple of 6 (RFC 9113, 6.5).
    BrokenHttp2,
}

impl Offence {
    /// Once, on a connection of its own.
    async fn commit(self, stage: &Stage) -> Result<()> {
        let mut tcp = tokio::net::TcpStream::connect(stage.address()).await?;
        let (protocol, bytes): (&[u8], &[u8]) = match self {
            Self::NoTls => {
                tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
                // An alert, or the end: either way it was judged.
                drop(tcp.read_to_end(&mut Vec::new()).await);
                return Ok(());
            }
            Self::NoHttp1 => (b"http/1.1", b"\x00\x01 not HTTP\r\n\r\n"),
            Self::NoHttp2 => (b"h2", b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n"),
            Self::BrokenHttp2 => (
                b"h2",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x05\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00",
            ),
        };
        let mut stream = tls(stage, tcp, protocol).await?;
        stream.write_all(bytes).await?;
        stream.flush().await?;
        drop(stream.read_to_end(&mut Vec::new()).await);
        Ok(())
    }
}

pub(crate) fn a_flood_of_connections_reaches_no_worker() -> Result<()> {
    let stage = Stage::new("connections_per_second = 10\nconnection_burst = 20\n")?;
    stage.beside(&stage.net.honest, || {
        let started = Instant::now();
        let connected = stampede(&stage.net.abusive, stage.address(), 500)?.len() as u64;
        let more = started.elapsed().as_secs() * 10 + 10;
        ensure!((20..=20 + more).contains(&connected), "{connected} of 500 connected");
        ensure!(stage.packets("dropped_connection_rate")? >= 500 - connected);
        pause(Duration::from_secs(2));
        stage.served(&stage.net.abusive, &stage.abusive.primary).context("once the burst is free again")
    })
}

pub(crate) fn whoever_hoards_connections_gets_no_more() -> Result<()> {
    let stage = Stage::new("concurrent_connections = 10\n")?;
    let abusive = &stage.net.abusive;
    stage.beside(&stage.net.honest, || {
        let connect = || abusive.run(|| Ok(TcpStream::connect_timeout(&stage.address(), IMPATIENCE)?));
        let hoard: Vec<TcpStream> = (0..15).filter_map(|_| connect().ok()).collect();
        // One handshake may still be under way when the next begins.
        ensure!((10..=11).contains(&hoard.len()), "{} connections", hoard.len());
        ensure!(stage.packets("dropped_concurrent_connections")? >= 4);
        drop(hoard);
        until("the hoard is let go", || {
            let status = stage.status()?;
            let top = status["top"].as_array().context("no sources")?;
            Ok(!top.iter().any(|source| source["source"] == "10.9.0.2" && source["connections"] != 0))
        })?;
        stage.served(abusive, &stage.abusive.primary)
    })
}

/// The abusive namespace is a trusted balancer here, and speaks for clients elsewhere.
pub(crate) fn clients_of_a_balancer_are_charged_by_the_address_it_names() -> Result<()> {
    let stage = Stage::with(
        "calls_per_second = 1\ncall_burst = 20\nconnections_per_second = 2\nconnection_burst = 2\n",
        "[listen]\nproxy_protocol_from = [\"10.9.0.2\"]\n",
    )?;
    let call = async |client: &str| -> Result<String> {
        let mut tcp = tokio::net::TcpStream::connect(stage.address()).await?;
        tcp.write_all(format!("PROXY TCP4 {client} 10.9.0.1 40000 443\r\n").as_bytes()).await?;
        let mut stream = tls(&stage, tcp, b"http/1.1").await?;
        let request = format!(
            "GET /openai/v1/models HTTP/1.1\r\nhost: gateway\r\napi-key: {}\r\nconnection: close\r\n\r\n",
            stage.abusive.primary
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        Ok(String::from_utf8(answer)?)
    };
    within(&stage.net.abusive, async || {
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(timeout(PATIENCE, call("203.0.113.7")).await.context("silence")??);
        }
        let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429")).count();
        ensure!(refused > 0 && answers[..20].iter().all(|answer| answer.starts_with("HTTP/1.1 200")));
        let other = call("203.0.113.8").await?;
        ensure!(other.starts_with("HTTP/1.1 200"), "{other}");
        Ok(())
    })?;
    ensure!(stage.packets("dropped_penalty")? + stage.packets("dropped_connection_rate")? == 0);
    ensure!(stage.packets("exempt")? > 0, "the balancer opened more connections than a caller may");
    let status = stage.status()?;
    ensure!(status["top"][0]["source"] == "203.0.113.7", "{status:#}");
    Ok(())
}

pub(crate) fn limits_reload_without_privileges() -> Result<()> {
    let stage = Stage::new("calls_per_second = 10\n")?;
    let gateway = stage.gateway()?;
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid()))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
    let left = u64::from_str_radix(effective.trim(), 16)?;
    ensure!(left & !(1 << caps::Capability::CAP_BPF.index()) == 0, "{effective}");

    let changed =
        "[kernel]\nmode = \"off\"\ncall_burst = 7\nconnections_per_second = 1\nconnection_burst = 1\n";
    gateway.site().configure(&stage.config.clone().with(changed)?)?;
    until("the limits are the new ones", || Ok(stage.status()?["limits"]["callBurst"] == 7))?;
    let started = Instant::now();
    let connected = stampede(&stage.net.abusive, stage.address(), 50)?.len() as u64;
    ensure!(connected <= 3 + started.elapsed().as_secs(), "{connected} connected");
    let status = stage.status()?;
    ensure!(status["attached"]["interfaces"][0]["name"] == UPLINK, "{status:#}");
    ensure!(status["mode"] == "required", "the mode in force: {status:#}");

    stage.net.server.ip("link del uplink")?;
    stage.net.server.ip("link add uplink type veth peer name other")?;
    until("the interface is protected again", || Ok(xdp_program(&stage.net.server)?.is_some()))
}

pub(crate) fn a_gateway_killed_under_flood_leaves_nothing() -> Result<()> {
    let mut stage = Stage::new("connections_per_second = 5\nconnection_burst = 10\n")?;
    for _ in 0..2 {
        let id = xdp_program(&stage.net.server)?.context("nothing is attached")?;
        let programs = relatives(id);
        ensure!(programs.len() == 2, "the XDP program and the counting one: {programs:?}");
        let gateway = stage.gateway.take().context("the gateway is gone")?;
        let (net, address, over) = (&stage.net, stage.address(), AtomicBool::new(false));
        let site = thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    stampede(&net.abusive, address, 100)?;
                }
                Ok(())
            });
            pause(IMPATIENCE);
            let killed = gateway.kill();
            let gone = xdp_program(&net.server);
            over.store(true, Ordering::Relaxed);
            let flooded: Result<()> =
                flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            flooded?;
            ensure!(gone?.is_none(), "the program outlived its process");
            killed
        })?;
        until("the programs are gone", || Ok(!loaded(&programs)))?;
        stage.gateway = Some(stage.net.server.run(|| site.start())?);
        stage.until_ready()?;
        stage.served(&stage.net.honest, &stage.honest.primary).context("after the restart")?;
    }
    Ok(())
}

async fn tls(
    stage: &Stage,
    tcp: tokio::net::TcpStream,
    protocol: &[u8],
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let config = stage.authority.client_config(&[protocol])?;
    let name = ServerName::IpAddress(stage.address().ip().into());
    Ok(TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await?)
}
