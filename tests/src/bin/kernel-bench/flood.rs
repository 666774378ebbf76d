//! An honest client's calls to the gateway while another floods its port with SYNs.
//!
//! One core has the gateway and the interrupts of its network interface, as a machine of its own would; the other has
//! everything else: the flood, the switch, the honest client and the upstream. So what the flood costs its sender is paid
//! on another core than what it costs the gateway, and is measured as well, by a flood that the switch drops.

mod gateway;
mod honest;
mod interrupts;
mod sender;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::process::{CoreTimes, fraction};
use gateway_tests::netns::{ABUSIVE_V4, Net, SERVER_V4, UPLINK};
use gateway_tests::packets::{RECEIVER, syns};
use serde::Serialize;

use self::gateway::Gateway;
use self::honest::{Calls, Honest};
use self::interrupts::Interrupts;
use super::rules::{PORT, Shedding};
use super::{Arguments, Cores, median};

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Scene {
    flood: Flood,
    shedding: Shedding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Flood {
    None,
    /// To an Ethernet address that nobody has: the switch drops it.
    Elsewhere,
    Gateway,
}

const SCENES: [Scene; 7] = [
    Scene { flood: Flood::None, shedding: Shedding::Nobody },
    Scene { flood: Flood::None, shedding: Shedding::Gateway },
    Scene { flood: Flood::Elsewhere, shedding: Shedding::Nobody },
    Scene { flood: Flood::Gateway, shedding: Shedding::Nobody },
    Scene { flood: Flood::Gateway, shedding: Shedding::Nftables },
    Scene { flood: Flood::Gateway, shedding: Shedding::Iptables },
    Scene { flood: Flood::Gateway, shedding: Shedding::Gateway },
];

/// What a scene came to; medians of the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    scene: Scene,
    calls_per_second: f64,
    /// As a share of the calls without a flood and without the programs attached.
    of_unloaded: f64,
    p99_us: f64,
    /// New connections that the honest client could not make, of all that it tried.
    failed_connections: u64,
    tried_connections: u64,
    gateway_core_busy: f64,
    load_core_busy: f64,
    flood_packets_per_second: f64,
    /// What the gateway's core does for each packet of the flood, measured without calls; nothing where none arrives.
    cpu_ns_per_packet: Option<f64>,
}

struct Round {
    calls: Calls,
    gateway_core_busy: f64,
    load_core_busy: f64,
    sent_per_second: f64,
    cpu_ns_per_packet: Option<f64>,
}

/// How much of the flood that was asked for must arrive for a figure to count.
const ENOUGH: f64 = 0.95;
/// Until connections, caches and the flood's first burst are what they stay.
const WARM_UP: Duration = Duration::from_millis(500);

pub(super) fn measure(arguments: &Arguments, cores: Cores) -> Result<Vec<Line>> {
    let mut rounds: Vec<(Scene, Vec<Round>)> = SCENES.map(|scene| (scene, Vec::new())).into();
    // Interleaved, so that what else the machine does falls on all alike.
    for _ in 0..arguments.rounds {
        for (scene, done) in &mut rounds {
            let round = round(*scene, arguments, cores);
            done.push(round.with_context(|| format!("{}, {}", scene.flood.label(), scene.shedding.label()))?);
        }
    }
    let unloaded = rounds.first().map_or(0.0, |(_, rounds)| middle(rounds, |round| round.calls.per_second));
    Ok(rounds.iter().map(|(scene, rounds)| Line::of(*scene, rounds, unloaded)).collect())
}

pub(super) fn table(lines: &[Line], rate: u64) -> String {
    let mut text = format!(
        "An honest client's calls under a flood of {rate} SYNs a second; ns are the gateway's core's, per SYN\n\
         {:<46} {:>8} {:>5} {:>8} {:>9} {:>11} {:>6}\n",
        "", "calls/s", "%", "p99 µs", "failed", "cores busy", "ns"
    );
    for line in lines {
        let name = format!("{}; {}", line.scene.flood.label(), line.scene.name());
        let failed = format!("{}/{}", line.failed_connections, line.tried_connections);
        let busy = format!("{:.0} % {:.0} %", line.gateway_core_busy * 1e2, line.load_core_busy * 1e2);
        let ns = line.cpu_ns_per_packet.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
        text.push_str(&format!(
            "{name:<46} {:>8.0} {:>5.1} {:>8.0} {failed:>9} {busy:>11} {ns:>6}\n",
            line.calls_per_second,
            line.of_unloaded * 1e2,
            line.p99_us,
        ));
    }
    text
}

impl Scene {
    const fn name(self) -> &'static str {
        match (self.flood, self.shedding) {
            (Flood::None | Flood::Elsewhere, Shedding::Gateway) => "XDP attached",
            (Flood::None | Flood::Elsewhere, _) => "XDP not attached",
            (Flood::Gateway, shedding) => shedding.label(),
        }
    }
}

impl Flood {
    const fn label(self) -> &'static str {
        match self {
            Self::None => "no flood",
            Self::Elsewhere => "flood elsewhere",
            Self::Gateway => "flood",
        }
    }
}

impl Line {
    fn of(scene: Scene, rounds: &[Round], unloaded: f64) -> Self {
        let calls_per_second = middle(rounds, |round| round.calls.per_second);
        Self {
            scene,
            calls_per_second,
            of_unloaded: calls_per_second / unloaded,
            p99_us: middle(rounds, |round| round.calls.p99_us),
            failed_connections: rounds.iter().map(|round| round.calls.failed_connections).sum(),
            tried_connections: rounds.iter().map(|round| round.calls.tried_connections).sum(),
            gateway_core_busy: middle(rounds, |round| round.gateway_core_busy),
            load_core_busy: middle(rounds, |round| round.load_core_busy),
            flood_packets_per_second: middle(rounds, |round| round.sent_per_second),
            cpu_ns_per_packet: median(rounds.iter().filter_map(|round| round.cpu_ns_per_packet).collect()),
        }
    }
}

fn middle(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(of).collect()).unwrap_or(0.0)
}

fn round(scene: Scene, arguments: &Arguments, cores: Cores) -> Result<Round> {
    let net = Net::new()?;
    net.server.ip(&format!("link set {UPLINK} address {RECEIVER}"))?;
    // Whoever floods does not answer, and what is sent to it is of no interest.
    let unheard = text(net.dead_end(1)?);
    net.server.ip(&format!("neigh add 10.9.0.2 lladdr {unheard} dev {UPLINK} nud permanent"))?;
    let nobody = net.dead_end(2)?;
    let interrupts = Interrupts::separate(&net, cores)?;
    scene.shedding.apply(&net.server)?;
    let gateway = Gateway::start(&net.server, scene.shedding == Shedding::Gateway, cores)?;
    let frames = frames(scene.flood, nobody);
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let time = Duration::from_secs(arguments.seconds);
    thread::scope(|scope| {
        let flood = (!frames.is_empty()).then(|| {
            let (abusive, frames, over, sent) = (&net.abusive, &frames, &over, &sent);
            scope.spawn(move || abusive.run(|| sender::flood(frames, arguments.flood_rate, over, sent)))
        });
        let window =
            Window { interrupts: &interrupts, sent: &sent, rate: arguments.flood_rate, scene, cores };
        let outcome = window.measure(&net, &gateway, time);
        over.store(true, Ordering::Relaxed);
        let sending = flood.map_or(Ok(Ok(())), thread::ScopedJoinHandle::join);
        sending.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(outcome)
    })
}

/// What is looked at while a flood goes on.
struct Window<'a> {
    interrupts: &'a Interrupts,
    sent: &'a AtomicU64,
    rate: u64,
    scene: Scene,
    cores: Cores,
}

impl Window<'_> {
    fn measure(&self, net: &Net, gateway: &Gateway, time: Duration) -> Result<Round> {
        let honest = Honest { gateway: gateway.address(), key: gateway.key(), warm_up: WARM_UP, time };
        let (before, cores) = (self.passed_on(net)?, self.core_times()?);
        let started = Instant::now();
        let calls = net.honest.run(|| honest.call())?;
        let elapsed = started.elapsed().as_secs_f64();
        let (after, cores_after) = (self.passed_on(net)?, self.core_times()?);
        let sent_per_second = fraction(after.saturating_sub(before), 1) / elapsed;
        if self.scene.flood != Flood::None {
            self.enough("were sent", sent_per_second)?;
        }
        Ok(Round {
            calls,
            gateway_core_busy: cores_after[0].busy_since(&cores[0]),
            load_core_busy: cores_after[1].busy_since(&cores[1]),
            sent_per_second,
            cpu_ns_per_packet: (self.scene.flood == Flood::Gateway)
                .then(|| self.cpu_ns_per_packet(net, time))
                .transpose()?,
        })
    }

    /// What the interface's interrupts take for each packet, when there is nothing but the flood.
    fn cpu_ns_per_packet(&self, net: &Net, time: Duration) -> Result<f64> {
        let before = (interrupts::arrived(&net.server)?, self.interrupts.cpu_ns()?);
        let started = Instant::now();
        pause(time / 2);
        let after = (interrupts::arrived(&net.server)?, self.interrupts.cpu_ns()?);
        let arrived = after.0 - before.0;
        self.enough("arrived", fraction(arrived, 1) / started.elapsed().as_secs_f64())?;
        Ok(fraction(after.1 - before.1, arrived))
    }

    /// How many packets were sent and not lost on the way for want of room.
    fn passed_on(&self, net: &Net) -> Result<u64> {
        let sent = self.sent.load(Ordering::Relaxed);
        Ok(sent.saturating_sub(interrupts::lost(&net.switch)?))
    }

    fn enough(&self, what: &str, per_second: f64) -> Result<()> {
        ensure!(
            per_second >= ENOUGH * fraction(self.rate, 1),
            "of {} packets a second {per_second:.0} {what}: ask for a rate that this machine can send, with --flood-rate",
            self.rate
        );
        Ok(())
    }

    fn core_times(&self) -> Result<[CoreTimes; 2]> {
        Ok([CoreTimes::of(self.cores.gateway)?, CoreTimes::of(self.cores.load)?])
    }
}

fn frames(flood: Flood, nobody: [u8; 6]) -> Vec<Vec<u8>> {
    let mut frames = if flood == Flood::None { Vec::new() } else { syns(ABUSIVE_V4, SERVER_V4, PORT) };
    if flood == Flood::Elsewhere {
        frames.iter_mut().filter_map(|frame| frame.first_chunk_mut()).for_each(|to| *to = nobody);
    }
    frames
}

fn text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// Waits out a time; a park may end sooner.
fn pause(time: Duration) {
    let started = Instant::now();
    while let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
