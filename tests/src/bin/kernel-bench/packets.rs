//! The XDP program alone, with few and many sources in the maps.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::num::NonZeroU32;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, MapData};
use aya::programs::{ProgramError, XdpMode};
use aya::{Pod, TestRun as _, TestRunOptions};
use gateway_ebpf::maps::{self, Known};
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;
use gateway_tests::kernel_maps::{now_ns, source_map};
use gateway_tests::load::process::{fraction, thread_cpu_ns};
use gateway_tests::netns::Namespace;
use gateway_tests::packets::{ACK, IPV4, RECEIVER, SYN, TCP, ethernet, ipv4, tcp};
use gateway_tests::tap::Tap;
use gateway_user::kernel::{KernelConfig, Programs};
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use super::median;
use super::rules::{CARD, PORT};

const HERE: [u8; 4] = [192, 0, 2, 1];
const SOURCES: [u32; 4] = [1, 1_000, USUAL, 1_000_000];
/// So many fit in maps of their usual sizes, the smallest of which has room for 65,536.
const USUAL: u32 = 50_000;
/// The maps' size for more.
const ENTRIES: u32 = 1 << 21;
const REPEAT: u32 = 1_000_000;
/// Packets at the tap device. They take less than half a second: a spent rate stays so for two.
const PACKETS: u64 = 200_000;
/// How often a disturbed measurement is made anew.
const ATTEMPTS: u32 = 5;
const DAY_NS: u64 = 86_400_000_000_000;

/// One kind of packet with so many sources in the maps.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    case: &'static str,
    sources: u32,
    /// One source again and again, by `BPF_PROG_TEST_RUN`: its state is in the nearest cache.
    same_ns: f64,
    /// Each packet from any of the sources, uniformly random; of drops only. What it takes longer at a tap device than the
    /// same source again and again, added to [`Line::same_ns`].
    random_ns: Option<f64>,
}

/// One kind of packet.
struct Case {
    name: &'static str,
    port: u16,
    flags: u8,
    verdict: Verdict,
}

const PASSED: [Case; 3] = [
    Case { name: "another port", port: PORT + 1, flags: ACK, verdict: Verdict::Foreign },
    Case { name: "established", port: PORT, flags: ACK, verdict: Verdict::Established },
    Case { name: "opened", port: PORT, flags: SYN, verdict: Verdict::Opened },
];

const DROPPED: [Case; 3] = [
    Case { name: "dropped: holds too many", port: PORT, flags: SYN, verdict: Verdict::OverHeld },
    Case { name: "dropped: too fast", port: PORT, flags: SYN, verdict: Verdict::OverRate },
    Case { name: "dropped: penalty", port: PORT, flags: ACK, verdict: Verdict::Penalised },
];

pub(super) fn measure(rounds: usize) -> Result<Vec<Line>> {
    let alone = Namespace::new()?;
    let tap = alone.run(|| Tap::new(CARD).context("cannot make a tap device"))?;
    alone.ip(&format!("link set {CARD} address {RECEIVER} up"))?;
    alone.run(|| {
        let mut bench = Bench { tap, programs: Programs::load()?, rounds, random: 1 };
        let mut lines = Vec::new();
        for sources in SOURCES {
            bench.programs = loaded(sources)?;
            fill::<u64>(&mut bench.programs, maps::RECENT, sources, || Ok(0))?;
            for case in &PASSED {
                lines.push(bench.passed(case, sources)?);
            }
            bench.programs.set_limits(&limits(1, 1), PORT)?;
            bench.programs.xdp()?.attach_to_if_index(if_nametoindex(CARD)?, XdpMode::Driver)?;
            for case in &DROPPED {
                lines.push(bench.dropped(case, sources)?);
            }
        }
        Ok(lines)
    })
}

pub(super) fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "The XDP program, nanoseconds a packet\n{:<28} {:>10} {:>12} {:>14}\n",
        "", "sources", "same source", "random source"
    );
    for Line { case, sources, same_ns, random_ns } in lines {
        let random = random_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
        text.push_str(&format!("{case:<28} {sources:>10} {same_ns:>12.0} {random:>14}\n"));
    }
    text
}

struct Bench {
    tap: Tap,
    programs: Programs,
    rounds: usize,
    /// The last random number.
    random: u32,
}

impl Bench {
    fn passed(&mut self, case: &Case, sources: u32) -> Result<Line> {
        let rounds = (0..self.rounds).map(|_| self.alone(case)).collect::<Result<Vec<_>>>()?;
        Ok(Line { case: case.name, sources, same_ns: median(rounds).context("no rounds")?, random_ns: None })
    }

    fn dropped(&mut self, case: &Case, sources: u32) -> Result<Line> {
        let (mut alone, mut longer) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            self.deserve(case.verdict, sources)?;
            alone.push(self.alone(case)?);
            // Side by side, so that what else the machine does falls on both; a spent rate is spent anew for each.
            let same = self.arriving(case, sources, |_| 0)?;
            longer.push(self.arriving(case, sources, |random| random % sources)? - same);
        }
        let same_ns = median(alone).context("no rounds")?;
        let random_ns = Some(same_ns + median(longer).context("no rounds")?);
        Ok(Line { case: case.name, sources, same_ns, random_ns })
    }

    /// Gives the sources a state in which their packets are dropped.
    fn deserve(&mut self, verdict: Verdict, sources: u32) -> Result<()> {
        match verdict {
            Verdict::OverHeld => {
                fill(&mut self.programs, maps::KNOWN, sources, || Ok(Known { held: i64::MAX, word: 0 }))
            }
            // Two intervals ahead: farther would be taken for a limit that was changed.
            Verdict::OverRate => fill(&mut self.programs, maps::KNOWN, sources, || {
                Ok(Known { held: 1, word: now_ns()? + 1_990_000_000 })
            }),
            Verdict::Penalised => {
                let end_ns = now_ns()? + DAY_NS;
                fill(&mut self.programs, maps::PENALTIES, sources, || Ok(end_ns))
            }
            Verdict::Foreign
            | Verdict::Unreadable
            | Verdict::Established
            | Verdict::Opened
            | Verdict::Exempt => Ok(()),
        }
    }

    /// By `BPF_PROG_TEST_RUN`.
    fn alone(&mut self, case: &Case) -> Result<f64> {
        let frame = frame(case, 0);
        let result = loop {
            let options = TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..TestRunOptions::new() };
            match self.programs.xdp()?.test_run(options) {
                // The kernel gives a long run up when the thread has anything else to do.
                Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {
                }
                result => break result?,
            }
        };
        let dropped = result.return_value == 1;
        ensure!(dropped == case.verdict.drops(), "{}: action {}", case.name, result.return_value);
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    /// At the tap device, from the sources that `pick` makes of random numbers.
    fn arriving(&mut self, case: &Case, sources: u32, pick: impl Fn(u32) -> u32) -> Result<f64> {
        for _ in 0..ATTEMPTS {
            self.deserve(case.verdict, sources)?;
            let before = (self.count(case.verdict)?, thread_cpu_ns());
            self.arrive(case, &pick)?;
            let took = thread_cpu_ns() - before.1;
            // Fewer are dropped when something else had the core until rates were whole again.
            if self.count(case.verdict)? - before.0 == PACKETS {
                return Ok(fraction(took, PACKETS));
            }
        }
        bail!("{}: not all packets were, {ATTEMPTS} times", case.name)
    }

    fn arrive(&mut self, case: &Case, pick: impl Fn(u32) -> u32) -> Result<()> {
        let mut frame = frame(case, 0);
        for _ in 0..PACKETS {
            // A linear congruential generator (Numerical Recipes); its high bits are the random ones.
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if let Some(place) = frame.get_mut(SOURCE_AT..SOURCE_AT + 4) {
                place.copy_from_slice(&address(pick(self.random >> 8)));
            }
            self.tap.arrive(&frame)?;
        }
        Ok(())
    }

    fn count(&self, wanted: Verdict) -> Result<u64> {
        let counts = self.programs.verdicts()?;
        counts.iter().find(|(verdict, _)| *verdict == wanted).map(|(_, n)| *n).context("no such counter")
    }
}

fn limits(per_second: u32, burst: u32) -> KernelConfig {
    KernelConfig {
        connections_per_second: NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN),
        connection_burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        ..KernelConfig::default()
    }
}

/// The programs with room for so many sources, and limits that nobody exceeds.
fn loaded(sources: u32) -> Result<Programs> {
    let larger = [maps::RECENT, maps::KNOWN, maps::PENALTIES].map(|name| (name, ENTRIES));
    let mut programs = Programs::load_sized(if sources > USUAL { &larger } else { &[] })?;
    programs.set_limits(&limits(1_000_000_000, 1_000_000_000), PORT)?;
    programs.set_exempt(&KernelConfig::default().exempt)?;
    programs.set_local(&[IpAddr::from(HERE)])?;
    Ok(programs)
}

fn fill<V: Pod>(
    programs: &mut Programs,
    name: &str,
    sources: u32,
    value: impl Fn() -> Result<V>,
) -> Result<()> {
    let mut map: HashMap<MapData, Source, V> = source_map(programs, name)?;
    for number in 0..sources {
        map.insert(Source::from_v4(address(number)), value()?, 0)?;
    }
    Ok(())
}

/// Where the sender's address is in a frame of [`frame`].
const SOURCE_AT: usize = 14 + 12;

fn frame(case: &Case, number: u32) -> Vec<u8> {
    let segment = tcp(case.port, case.flags);
    ethernet(&[], IPV4, &ipv4(address(number), HERE, &[], 0, TCP, &segment))
}

/// The sources, numbered.
fn address(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number).to_be_bytes()
}
