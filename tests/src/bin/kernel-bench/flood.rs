//! An honest client's calls while another floods the port with SYNs.
//!
//! Everything runs on this machine: the flood's own price is in every figure, so it is measured too, sent where nothing
//! listens.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::netns::{ABUSIVE_V4, Namespace, Net, SERVER_V4};
use gateway_tests::packets::{SYN, seal, tcp};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Arguments, median};

const PORT: u16 = 8443;
/// Connections that the honest client keeps.
const CONNECTIONS: usize = 4;

/// Who sheds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shedding {
    /// There is no flood.
    NoFlood,
    /// The flood goes to an address that nobody has.
    FloodElsewhere,
    Nobody,
    Nftables,
    Iptables,
    Gateway,
}

/// What one arrangement came to; medians of the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    shedding: Shedding,
    calls_per_second: f64,
    p99_us: f64,
    /// New connections that the honest client could not make.
    failed_connections: u64,
    flood_packets_per_second: f64,
    /// Processor time of the whole machine beyond `no_flood`'s, by flood packet.
    cpu_ns_per_packet: f64,
}

struct Round {
    calls_per_second: f64,
    p99_us: f64,
    failed_connections: u64,
    sent_per_second: f64,
    busy_ns_per_second: f64,
}

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Line>> {
    let all = [
        Shedding::NoFlood,
        Shedding::FloodElsewhere,
        Shedding::Nobody,
        Shedding::Nftables,
        Shedding::Iptables,
        Shedding::Gateway,
    ];
    // Interleaved, so that what else the machine does falls on all alike.
    let mut rounds: Vec<(Shedding, Vec<Round>)> = all.map(|shedding| (shedding, Vec::new())).into();
    for _ in 0..arguments.rounds {
        for (shedding, done) in &mut rounds {
            done.push(round(*shedding, arguments)?);
        }
    }
    let middle =
        |rounds: &[Round], of: fn(&Round) -> f64| median(rounds.iter().map(of).collect()).unwrap_or(0.0);
    let idle = rounds.first().map_or(0.0, |(_, rounds)| middle(rounds, |round| round.busy_ns_per_second));
    Ok(rounds
        .into_iter()
        .map(|(shedding, rounds)| {
            let sent = middle(&rounds, |round| round.sent_per_second);
            let busy = middle(&rounds, |round| round.busy_ns_per_second);
            Line {
                shedding,
                calls_per_second: middle(&rounds, |round| round.calls_per_second),
                p99_us: middle(&rounds, |round| round.p99_us),
                failed_connections: rounds.iter().map(|round| round.failed_connections).sum(),
                flood_packets_per_second: sent,
                cpu_ns_per_packet: if sent > 0.0 { (busy - idle) / sent } else { 0.0 },
            }
        })
        .collect())
}

fn round(shedding: Shedding, arguments: &Arguments) -> Result<Round> {
    let net = Net::new()?;
    let mut server = Server::start(&net.server, shedding == Shedding::Gateway)?;
    filter(&net.server, shedding)?;
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let time = Duration::from_secs(arguments.seconds);
    let outcome = thread::scope(|scope| {
        if shedding != Shedding::NoFlood {
            let target = if shedding == Shedding::FloodElsewhere { net.dead_end()? } else { SERVER_V4 };
            let (stop, sent, net) = (&stop, &sent, &net);
            scope.spawn(move || net.abusive.run(|| flood(target, arguments.flood_rate, stop, sent)));
        }
        let result = honest(&net.honest, time, &sent);
        stop.store(true, Ordering::Relaxed);
        result
    });
    server.stop()?;
    outcome
}

/// Calls on kept connections as fast as they are answered, and ten new connections a second.
fn honest(inside: &Namespace, time: Duration, sent: &AtomicU64) -> Result<Round> {
    let server = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(SERVER_V4), PORT));
    inside.run(|| {
        let kept = (0..CONNECTIONS)
            .map(|_| TcpStream::connect_timeout(&server, Duration::from_secs(20)))
            .collect::<Result<Vec<_>, _>>()
            .context("the honest client cannot connect")?;
        let (busy_before, sent_before, started) = (busy_ns()?, sent.load(Ordering::Relaxed), Instant::now());
        let until = started + time;
        let (mut latencies, failed) = thread::scope(|scope| {
            let callers: Vec<_> =
                kept.into_iter().map(|stream| scope.spawn(move || calls(stream, until))).collect();
            let failed = new_connections(server, until);
            let latencies: Vec<u64> =
                callers.into_iter().filter_map(|caller| caller.join().ok()).flatten().flatten().collect();
            (latencies, failed)
        });
        let elapsed = started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().context("no call was answered")?;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        Ok(Round {
            calls_per_second: latencies.len() as f64 / elapsed,
            p99_us: p99 as f64 / 1e3,
            failed_connections: failed,
            sent_per_second: (sent.load(Ordering::Relaxed) - sent_before) as f64 / elapsed,
            busy_ns_per_second: (busy_ns()? - busy_before) as f64 / elapsed,
        })
    })
}

/// Nanoseconds from question to answer of every call.
fn calls(mut stream: TcpStream, until: Instant) -> Result<Vec<u64>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut latencies, mut buffer) = (Vec::new(), [0; 256]);
    while Instant::now() < until {
        let asked = Instant::now();
        stream.write_all(&[7; 256])?;
        stream.read_exact(&mut buffer)?;
        latencies.push(u64::try_from(asked.elapsed().as_nanos())?);
    }
    Ok(latencies)
}

fn new_connections(server: SocketAddr, until: Instant) -> u64 {
    let mut failed = 0;
    while Instant::now() < until {
        let started = Instant::now();
        if TcpStream::connect_timeout(&server, Duration::from_millis(500)).is_err() {
            failed += 1;
        }
        thread::park_timeout(Duration::from_millis(100).saturating_sub(started.elapsed()));
    }
    failed
}

/// SYNs from one address and all its ports, at a steady rate.
fn flood(target: [u8; 4], rate: u64, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let to = SocketAddrV4::new(Ipv4Addr::from(target), 0).into();
    let packets: Vec<Vec<u8>> = (1024..=u16::MAX)
        .map(|port| {
            let mut packet = tcp(PORT, SYN);
            packet[..2].copy_from_slice(&port.to_be_bytes());
            seal(&mut packet, ABUSIVE_V4, target);
            packet
        })
        .collect();
    let (started, mut count) = (Instant::now(), 0_u64);
    for packet in packets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // What does not fit is not sent, and not counted.
        if socket.send_to(packet, &to).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        count += 1;
        if count.is_multiple_of(32) {
            let due = started + Duration::from_nanos(count * 1_000_000_000 / rate);
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}

/// What the machine's processors were busy with so far, in nanoseconds.
fn busy_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no processors told")?;
    let columns: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|column| column.parse().ok()).collect();
    // user, nice, system, idle, waiting, interrupts, soft interrupts; in hundredths of a second.
    let [user, nice, system, _, _, hard, soft, ..] = columns.as_slice() else {
        anyhow::bail!("/proc/stat reads {line:?}");
    };
    Ok((user + nice + system + hard + soft) * 10_000_000)
}

/// The same limit as the gateway's by other means.
fn filter(server: &Namespace, shedding: Shedding) -> Result<()> {
    let rules: &[&str] = match shedding {
        Shedding::NoFlood | Shedding::FloodElsewhere | Shedding::Nobody | Shedding::Gateway => &[],
        Shedding::Nftables => &[
            "nft add table ip shed",
            "nft add chain ip shed raw { type filter hook prerouting priority -300 ; }",
            "nft add set ip shed sources { type ipv4_addr ; flags dynamic ; size 65536 ; timeout 1m ; }",
            "nft add rule ip shed raw tcp dport 8443 tcp flags & (syn | ack) == syn add @sources { ip saddr limit rate \
             over 50/second burst 100 packets } drop",
        ],
        Shedding::Iptables => &["iptables -w -t raw -A PREROUTING -p tcp --dport 8443 --syn -m hashlimit \
             --hashlimit-above 50/second --hashlimit-burst 100 --hashlimit-mode srcip --hashlimit-name shed -j DROP"],
    };
    rules.iter().try_for_each(|rule| server.command(rule))
}

/// The `shedder` beside this program, listening in a namespace.
struct Server {
    child: Child,
}

impl Server {
    fn start(inside: &Namespace, shedding: bool) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("shedder");
        inside.run(|| {
            let mut child = Command::new(&program)
                .args(["--listen", "0.0.0.0:8443", "--shedding", if shedding { "on" } else { "off" }])
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
            ensure!(line.starts_with("ready "), "the server said {line:?}");
            Ok(Self { child })
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, unless an error came first.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
