//! An honest client's calls to the gateway while another floods its port with SYNs.
//!
//! Gateway, honest client and flooder each have a network namespace of their own. One core has the gateway and its network
//! card, as a machine of its own would; the other has the honest client, whose calls come over a veth pair, and the
//! upstream. Turns with a flood and without follow one another several times a second,
//! under the same calls on the same connections: what else the machine does falls on both alike.

mod card;
mod gateway;
mod honest;
mod schedule;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::process::fraction;
use gateway_tests::netns::Net;
use gateway_tests::packets::{RECEIVER, syns};
use gateway_tests::tap::Tap;
use serde::Serialize;

use self::card::{Arrived, Card};
use self::gateway::Gateway;
use self::honest::{Answered, Calls, Honest};
use self::schedule::Schedule;
use super::rules::{CARD, PORT, Shedding};
use super::{Arguments, Cores, median};

/// What one who sheds came to; medians of the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    shedding: Shedding,
    unloaded: Served,
    flooded: Served,
    /// Calls under the flood as a share of those without.
    of_unloaded: f64,
    /// New connections that the honest client could not make under the flood, of all that it tried.
    failed_connections: u64,
    tried_connections: u64,
    /// What the gateway's core does for each packet of the flood, its arrival included.
    cpu_ns_per_packet: f64,
}

/// What the honest client got.
#[derive(Debug, Clone, Copy, Serialize)]
struct Served {
    calls_per_second: f64,
    p99_us: f64,
}

struct Round {
    calls: Calls,
    arrived: Arrived,
}

/// The gateway's address at the card, and whoever floods.
const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 2];
/// How much of the flood that was asked for must arrive for a figure to count.
const ENOUGH: f64 = 0.95;

pub(super) fn measure(arguments: &Arguments, cores: Cores) -> Result<Vec<Line>> {
    let mut rounds: Vec<(Shedding, Vec<Round>)> = Shedding::ALL.map(|shedding| (shedding, Vec::new())).into();
    for _ in 0..arguments.rounds {
        for (shedding, done) in &mut rounds {
            done.push(round(*shedding, arguments, cores).with_context(|| shedding.label())?);
        }
    }
    Ok(rounds.iter().map(|(shedding, rounds)| Line::of(*shedding, rounds)).collect())
}

pub(super) fn table(lines: &[Line], rate: u64) -> String {
    let mut text = format!(
        "An honest client's calls a second, without a flood and with {rate} SYNs a second;\n\
         ns are the gateway's core's for each SYN, its arrival included\n\
         {:<28} {:>8} {:>8} {:>6} {:>17} {:>7} {:>6}\n",
        "", "none", "flood", "%", "p99 µs none/flood", "failed", "ns"
    );
    for line in lines {
        let p99 = format!("{:.0} / {:.0}", line.unloaded.p99_us, line.flooded.p99_us);
        let failed = format!("{}/{}", line.failed_connections, line.tried_connections);
        text.push_str(&format!(
            "{:<28} {:>8.0} {:>8.0} {:>6.1} {p99:>17} {failed:>7} {:>6.0}\n",
            line.shedding.label(),
            line.unloaded.calls_per_second,
            line.flooded.calls_per_second,
            line.of_unloaded * 1e2,
            line.cpu_ns_per_packet,
        ));
    }
    text
}

impl Line {
    fn of(shedding: Shedding, rounds: &[Round]) -> Self {
        let served = |of: fn(&Calls) -> Answered| Served {
            calls_per_second: middle(rounds, |round| of(&round.calls).per_second),
            p99_us: middle(rounds, |round| of(&round.calls).p99_us),
        };
        Self {
            shedding,
            unloaded: served(|calls| calls.unloaded),
            flooded: served(|calls| calls.flooded),
            of_unloaded: middle(rounds, |round| {
                round.calls.flooded.per_second / round.calls.unloaded.per_second
            }),
            failed_connections: rounds.iter().map(|round| round.calls.failed_connections).sum(),
            tried_connections: rounds.iter().map(|round| round.calls.tried_connections).sum(),
            cpu_ns_per_packet: middle(rounds, |round| round.arrived.cpu_ns_per_packet),
        }
    }
}

fn middle(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(of).collect()).unwrap_or(0.0)
}

fn round(shedding: Shedding, arguments: &Arguments, cores: Cores) -> Result<Round> {
    let net = Net::new()?;
    // The flooder's, whose writes come in where the device is: as one virtual machine's packets reach another.
    let mut tap = net.abusive.run(|| Tap::new(CARD).context("cannot make a tap device"))?;
    net.abusive.ip(&format!("link set {CARD} netns {}", net.server.path()))?;
    net.server.ip(&format!("addr add 192.0.2.1/24 dev {CARD}"))?;
    net.server.ip(&format!("link set {CARD} address {RECEIVER} up"))?;
    net.server.ip(&format!("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev {CARD} nud permanent"))?;
    shedding.apply(&net.server)?;
    let gateway = Gateway::start(&net.server, shedding == Shedding::Gateway, cores)?;
    let frames = syns(THERE, HERE, PORT);
    let schedule = Schedule::new(arguments.seconds);
    let card = Card { tap: &mut tap, core: cores.gateway, rate: arguments.flood_rate, frames: &frames };
    let honest = Honest { gateway: gateway.address(), key: gateway.key(), schedule };
    let (calls, arrived) = thread::scope(|scope| {
        let arriving = scope.spawn(|| net.abusive.run(|| card.run(schedule)));
        let calls = net.honest.run(|| honest.call());
        let arrived = arriving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        anyhow::Ok((calls?, arrived?))
    })?;
    ensure!(
        arrived.per_second >= ENOUGH * fraction(arguments.flood_rate, 1),
        "of {} packets a second only {:.0} arrived: ask for a rate that this machine can take, with --flood-rate",
        arguments.flood_rate,
        arrived.per_second
    );
    Ok(Round { calls, arrived })
}

/// Waits out a time; a park may end sooner.
fn pause(time: Duration) {
    let started = Instant::now();
    while let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
