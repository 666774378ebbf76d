//! A packet's whole way, from the driver to where it is dropped, where the driver asks XDP before it makes a socket buffer.
//!
//! A tap device is such a driver, and the writer's time is all the time that there is: one thread lets packets arrive as
//! fast as they are dealt with.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use gateway_ebpf::verdict::Verdict;
use gateway_tests::load::process::{fraction, thread_cpu_ns};
use gateway_tests::netns::Namespace;
use gateway_tests::packets::{RECEIVER, syns};
use gateway_tests::tap::Tap;
use gateway_user::kernel::{KernelConfig, Programs};
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use super::rules::PORT;
use super::{Shedding, median};

const TAP: &str = "card";
const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 2];
const PACKETS: u64 = 400_000;

/// What a packet of a flood costs with one who sheds.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    shedding: Shedding,
    /// Writing the packet included.
    ns: f64,
}

pub(super) fn measure(rounds: usize) -> Result<Vec<Line>> {
    Shedding::ALL
        .into_iter()
        .map(|shedding| {
            let rounds = (0..rounds).map(|_| round(shedding)).collect::<Result<Vec<_>>>()?;
            Ok(Line { shedding, ns: median(rounds).context("no rounds")? })
        })
        .collect()
}

pub(super) fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "A flood's packet from a driver (tap, native XDP) to its end, one source, writing it included\n{:<28} {:>10}\n",
        "", "ns"
    );
    for Line { shedding, ns } in lines {
        text.push_str(&format!("{:<28} {ns:>10.0}\n", shedding.label()));
    }
    text
}

fn round(shedding: Shedding) -> Result<f64> {
    let alone = Namespace::new()?;
    let mut tap = alone.run(|| Tap::new(TAP).context("cannot make a tap device"))?;
    alone.ip(&format!("addr add 192.0.2.1/24 dev {TAP}"))?;
    alone.ip(&format!("link set {TAP} address {RECEIVER} up"))?;
    alone.ip(&format!("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev {TAP} nud permanent"))?;
    shedding.apply(&alone)?;
    alone.run(|| {
        let _listener = TcpListener::bind((Ipv4Addr::from(HERE), PORT))?;
        let mut programs = if shedding == Shedding::Gateway { Some(attached()?) } else { None };
        let frames = syns(THERE, HERE, PORT);
        // The burst passes first.
        frames.iter().take(1000).try_for_each(|frame| tap.arrive(frame))?;
        let before = thread_cpu_ns();
        for frame in frames.iter().cycle().take(usize::try_from(PACKETS)?) {
            tap.arrive(frame)?;
        }
        let took = thread_cpu_ns() - before;
        if let Some(programs) = &mut programs {
            let counts = programs.verdicts()?;
            let dropped =
                counts.iter().find(|(verdict, _)| *verdict == Verdict::OverRate).map_or(0, |(_, n)| *n);
            ensure!(dropped >= PACKETS * 99 / 100, "only {dropped} of {PACKETS} packets were dropped");
        }
        Ok(fraction(took, PACKETS))
    })
}

/// The programs with the default limits on the tap device.
fn attached() -> Result<Programs> {
    let mut programs = Programs::load()?;
    programs.set_limits(&KernelConfig { exempt: Vec::new(), ..KernelConfig::default() }, PORT)?;
    programs.set_local(&[IpAddr::from(HERE)])?;
    programs.xdp()?.attach_to_if_index(if_nametoindex(TAP)?, XdpMode::Driver)?;
    Ok(programs)
}
