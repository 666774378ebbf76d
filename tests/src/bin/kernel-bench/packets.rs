//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`, with few and many sources in the maps.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::num::NonZeroU32;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramError;
use aya::{Pod, TestRun as _, TestRunOptions};
use gateway_ebpf::maps::{self, Known};
use gateway_ebpf::source::Source;
use gateway_tests::kernel_maps::{now_ns, source_map};
use gateway_tests::packets::{ACK, IPV4, SYN, TCP, ethernet, ipv4, tcp};
use gateway_user::kernel::{KernelConfig, Programs};
use serde::Serialize;

use super::median;

const PORT: u16 = 8443;
const HERE: [u8; 4] = [192, 0, 2, 1];
const SOURCES: [u32; 3] = [1, 1_000, 1_000_000];
const REPEAT: u32 = 1_000_000;
/// Packets of different sources, run once each: what a source costs whose state is in no cache.
const COLD: u32 = 4_000;
const DAY_NS: u64 = 86_400_000_000_000;

/// One kind of packet with so many sources in the maps.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    case: &'static str,
    dropped: bool,
    sources: u32,
    /// One packet again and again.
    warm_ns: u128,
    /// Another source each time, the kernel's own stopwatch included ([`Line::stopwatch_ns`]).
    cold_ns: u128,
    /// What a packet that is not looked at takes when it is run once.
    stopwatch_ns: u128,
}

pub(super) fn measure(rounds: usize) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for sources in SOURCES {
        let mut programs = loaded(sources)?;
        let cases = [
            ("another port", false, (PORT + 1, ACK)),
            ("established", false, (PORT, ACK)),
            ("opened", false, (PORT, SYN)),
        ];
        for (case, dropped, (port, flags)) in cases {
            lines
                .push(line(&mut programs, case, dropped, sources, rounds, |from| packet(from, port, flags))?);
        }
        fill(&mut programs, maps::KNOWN, sources, Known { held: u64::MAX, word: 0 })?;
        lines.push(line(&mut programs, "over held", true, sources, rounds, |from| packet(from, PORT, SYN))?);
        programs.set_limits(&config(1, 1), PORT)?;
        fill(&mut programs, maps::KNOWN, sources, Known { held: 1, word: 0 })?;
        lines.push(line(&mut programs, "over rate", true, sources, rounds, |from| packet(from, PORT, SYN))?);
        fill(&mut programs, maps::PENALTIES, sources, now_ns()? + DAY_NS)?;
        lines.push(line(&mut programs, "penalty", true, sources, rounds, |from| packet(from, PORT, ACK))?);
    }
    Ok(lines)
}

fn config(per_second: u32, burst: u32) -> KernelConfig {
    KernelConfig {
        connections_per_second: NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN),
        connection_burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        ..KernelConfig::default()
    }
}

/// The programs with maps for a million sources, so many of which are known and within their limits.
fn loaded(sources: u32) -> Result<Programs> {
    let entries = 1 << 21;
    let names = [maps::RECENT, maps::KNOWN, maps::PENALTIES];
    let mut programs = Programs::load_sized(&names.map(|name| (name, entries)))?;
    programs.set_limits(&config(1_000_000_000, 1_000_000_000), PORT)?;
    programs.set_exempt(&KernelConfig::default().exempt)?;
    programs.set_local(&[IpAddr::from(HERE)])?;
    fill(&mut programs, maps::RECENT, sources, 0_u64)?;
    Ok(programs)
}

fn line(
    programs: &mut Programs,
    case: &'static str,
    dropped: bool,
    sources: u32,
    rounds: usize,
    packet: impl Fn([u8; 4]) -> Vec<u8>,
) -> Result<Line> {
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        spend(programs, &[source(0)])?;
        warm.push(run(programs, &packet(source(0)), REPEAT, dropped)?);
    }
    // A prime step through the sources: neighbours in time are none in memory.
    let scattered: Vec<[u8; 4]> = (0..COLD.min(sources)).map(|n| source((n * 7919) % sources)).collect();
    for some in scattered.chunks(500) {
        spend(programs, some)?;
        for from in some {
            cold.push(run(programs, &packet(*from), 1, dropped)?);
        }
    }
    let unread = ethernet(&[], 0x0806, &[]);
    let stopwatch = (0..COLD).map(|_| run(programs, &unread, 1, false)).collect::<Result<Vec<_>>>()?;
    Ok(Line {
        case,
        dropped,
        sources,
        warm_ns: median(warm).context("no rounds")?,
        cold_ns: median(cold).context("no sources")?,
        stopwatch_ns: median(stopwatch).context("no rounds")?,
    })
}

/// Spends the rate of sources that hold a connection: a second later they may open one again.
fn spend(programs: &mut Programs, sources: &[[u8; 4]]) -> Result<()> {
    let mut known = source_map::<Known>(programs, maps::KNOWN)?;
    for source in sources.iter().map(|source| Source::from_v4(*source)) {
        // Nothing before there are any.
        if let Ok(Known { held: held @ 1.., .. }) = known.get(&source, 0) {
            known.insert(source, Known { held, word: now_ns()? + 1_900_000_000 }, 0)?;
        }
    }
    Ok(())
}

fn run(programs: &mut Programs, packet: &[u8], repeat: u32, dropped: bool) -> Result<u128> {
    let result = loop {
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
        match programs.xdp()?.test_run(options) {
            // The kernel gives a long run up when the thread has anything else to do.
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    ensure!((result.return_value == 1) == dropped, "action {} is not what is measured", result.return_value);
    Ok(result.duration.as_nanos())
}

fn packet(from: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(from, HERE, &[], 0, TCP, &tcp(port, flags)))
}

/// The sources, numbered.
fn source(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number).to_be_bytes()
}

fn fill<V: Pod>(programs: &mut Programs, name: &str, sources: u32, value: V) -> Result<()> {
    let mut map = source_map(programs, name)?;
    for number in 0..sources {
        map.insert(Source::from_v4(source(number)), value, 0)?;
    }
    Ok(())
}
