//! Packet by packet, by `BPF_PROG_TEST_RUN`: no network, only the program and its maps.

use std::net::IpAddr;
use std::num::NonZeroU32;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, MapData};
use aya::{TestRun as _, TestRunOptions};
use gateway_ebpf::maps::{self, Known};
use gateway_ebpf::packet::{self, Segment};
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;
use gateway_tests::kernel_maps::{now_ns, source_map};
use gateway_tests::packets::{
    ACK, AUTHENTICATION, DESTINATION_OPTIONS, FIN, FRAGMENT, HOP_BY_HOP, IPV4, IPV6, MORE_FRAGMENTS, QINQ,
    ROUTING, RST, SYN, TCP, UDP, VLAN, authentication, ethernet, fragment, ipv4, ipv6, options, routing, tcp,
};
use gateway_user::kernel::{KernelConfig, Programs};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const PORT: u16 = 8443;
const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [198, 51, 100, 7];
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
/// Longer than any test: penalties that do not end within one.
const HOUR_NS: u64 = 3_600_000_000_000;

fn here_v6() -> [u8; 16] {
    "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn there_v6() -> [u8; 16] {
    "2001:db8:7::7".parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// The programs in the kernel, attached to nothing, listening on [`PORT`] of [`HERE`].
struct Bench {
    programs: Programs,
}

fn config(per_second: u32, burst: u32) -> KernelConfig {
    KernelConfig {
        connections_per_second: NonZeroU32::new(per_second).unwrap(),
        connection_burst: NonZeroU32::new(burst).unwrap(),
        concurrent_connections: NonZeroU32::new(10).unwrap(),
        exempt: Vec::new(),
        ..KernelConfig::default()
    }
}

impl Bench {
    fn new(config: &KernelConfig) -> Result<Self> {
        Self::sized(config, &[])
    }

    fn sized(config: &KernelConfig, entries: &[(&'static str, u32)]) -> Result<Self> {
        let mut programs = Programs::load_sized(entries)?;
        programs.set_limits(config, PORT)?;
        programs.set_exempt(&config.exempt)?;
        programs.set_local(&[IpAddr::from(HERE), IpAddr::from(here_v6())])?;
        Ok(Self { programs })
    }

    /// What the program returns, and the verdict that it counted.
    fn run(&mut self, frame: &[u8]) -> Result<Verdict> {
        let before = self.programs.verdicts()?;
        let returned = self.act(frame)?;
        let after = self.programs.verdicts()?;
        let counted: Vec<Verdict> = before
            .iter()
            .zip(&after)
            .flat_map(|((verdict, before), (_, after))| (*before..*after).map(|_| *verdict))
            .collect();
        let [verdict] = counted.as_slice() else {
            anyhow::bail!("one packet was counted as {counted:?}");
        };
        let expected = if verdict.drops() { XDP_DROP } else { XDP_PASS };
        ensure!(returned == expected, "{verdict:?} became action {returned}");
        Ok(*verdict)
    }

    fn act(&mut self, frame: &[u8]) -> Result<u32> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        Ok(self.programs.xdp()?.test_run(options)?.return_value)
    }

    /// Opens connections until there are too many.
    fn until_over_rate(&mut self, opening: &[u8]) -> Result<()> {
        for _ in 0..1000 {
            if self.run(opening)? == Verdict::OverRate {
                return Ok(());
            }
        }
        anyhow::bail!("a thousand connections were opened")
    }

    /// What the programs remember of sources, for a test to write what only they write.
    fn known(&mut self) -> Result<HashMap<MapData, Source, Known>> {
        source_map(&mut self.programs, maps::KNOWN)
    }
}

fn v4(payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], 0, TCP, payload))
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6(there_v6(), here_v6(), next, payload))
}

/// A frame with one byte changed.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

fn shapes() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    use Verdict::{Established, Foreign, Opened, Unreadable};
    let syn = tcp(PORT, SYN);
    let syn_v4 = || v4(&syn);
    let nested =
        (0..8).fold((TCP, syn.clone()), |(next, rest), _| (DESTINATION_OPTIONS, options(next, 0, &rest)));
    let too_deep =
        (0..9).fold((TCP, syn.clone()), |(next, rest), _| (DESTINATION_OPTIONS, options(next, 0, &rest)));
    let to_another = ipv4(THERE, [192, 0, 2, 99], &[], 0, TCP, &syn);
    let padded = [syn_v4(), vec![0; 6]].concat();
    let headers_in_padding = {
        // Claims to end after its IP header; the TCP header lies in what Ethernet calls padding.
        let mut packet = ipv4(THERE, HERE, &[], 0, TCP, &[]);
        packet.extend(&syn);
        ethernet(&[], IPV4, &packet)
    };
    let multicast = "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    vec![
        ("SYN", syn_v4(), Opened),
        ("SYN with ECN flags", v4(&tcp(PORT, SYN | 0xc0)), Opened),
        ("SYN with data", v4(&[syn.clone(), vec![1; 100]].concat()), Opened),
        ("ACK", v4(&tcp(PORT, ACK)), Established),
        ("SYN and ACK", v4(&tcp(PORT, SYN | ACK)), Established),
        ("RST", v4(&tcp(PORT, RST)), Established),
        ("FIN and ACK", v4(&tcp(PORT, FIN | ACK)), Established),
        ("no flags at all", v4(&tcp(PORT, 0)), Established),
        ("another port", v4(&tcp(PORT + 1, SYN)), Foreign),
        (
            "from our port, to another",
            v4(&[PORT.to_be_bytes(), [0, 80]]
                .concat()
                .into_iter()
                .chain(tcp(0, SYN).split_off(4))
                .collect::<Vec<_>>()),
            Foreign,
        ),
        ("another address, same port", ethernet(&[], IPV4, &to_another), Foreign),
        ("UDP to the port", ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], 0, UDP, &syn)), Foreign),
        ("ARP", ethernet(&[], 0x0806, &[0; 28]), Foreign),
        ("LLC, no ethertype", ethernet(&[], 0x0026, &[0; 46]), Foreign),
        ("Ethernet padding after", padded, Opened),
        // IPv4 options.
        ("one word of options", ethernet(&[], IPV4, &ipv4(THERE, HERE, &[1, 1, 1, 0], 0, TCP, &syn)), Opened),
        ("ten words of options", ethernet(&[], IPV4, &ipv4(THERE, HERE, &[1; 40], 0, TCP, &syn)), Opened),
        (
            "options that look like TCP",
            ethernet(&[], IPV4, &ipv4(THERE, HERE, &tcp(80, ACK), 0, TCP, &syn)),
            Opened,
        ),
        // Tags.
        ("VLAN", ethernet(&[VLAN], IPV4, &ipv4(THERE, HERE, &[], 0, TCP, &syn)), Opened),
        ("QinQ", ethernet(&[QINQ, VLAN], IPV4, &ipv4(THERE, HERE, &[], 0, TCP, &syn)), Opened),
        ("QinQ, IPv6", ethernet(&[QINQ, VLAN], IPV6, &ipv6(there_v6(), here_v6(), TCP, &syn)), Opened),
        (
            "three tags",
            ethernet(&[QINQ, VLAN, VLAN], IPV4, &ipv4(THERE, HERE, &[], 0, TCP, &syn)),
            Unreadable,
        ),
        ("a tag and no more", cut(ethernet(&[VLAN], IPV4, &[]), 16), Unreadable),
        // Fragments.
        ("don't-fragment flag", ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], 0x4000, TCP, &syn)), Opened),
        (
            "first fragment, flags seen",
            ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], MORE_FRAGMENTS, TCP, &tcp(PORT, ACK))),
            Established,
        ),
        (
            "first fragment, flags hidden",
            ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], MORE_FRAGMENTS, TCP, &syn[..8])),
            Opened,
        ),
        ("later fragment", ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], 3, TCP, &syn)), Foreign),
        (
            "last fragment",
            ethernet(&[], IPV4, &ipv4(THERE, HERE, &[], MORE_FRAGMENTS | 9, TCP, &syn)),
            Foreign,
        ),
        // Lies and cuts, IPv4.
        ("Ethernet header alone", cut(syn_v4(), 14), Unreadable),
        ("half an IPv4 header", cut(syn_v4(), 24), Unreadable),
        ("IPv4 header alone", cut(syn_v4(), 34), Unreadable),
        ("ports alone", cut(syn_v4(), 38), Unreadable),
        ("a TCP header short of one byte", cut(syn_v4(), 53), Unreadable),
        ("version 5", with(syn_v4(), 14, 0x55), Unreadable),
        ("header length 4 words", with(syn_v4(), 14, 0x44), Unreadable),
        ("header length beyond the packet", with(syn_v4(), 14, 0x4f), Unreadable),
        ("total length 0", with(with(syn_v4(), 16, 0), 17, 0), Unreadable),
        ("TCP header in the padding", headers_in_padding, Unreadable),
        // IPv6.
        ("SYN, IPv6", v6(TCP, &syn), Opened),
        ("ACK, IPv6", v6(TCP, &tcp(PORT, ACK)), Established),
        ("UDP, IPv6", v6(UDP, &syn), Foreign),
        ("ICMPv6", v6(58, &[0; 24]), Foreign),
        ("no next header", v6(59, &syn), Foreign),
        ("hop-by-hop", v6(HOP_BY_HOP, &options(TCP, 0, &syn)), Opened),
        ("long hop-by-hop", v6(HOP_BY_HOP, &options(TCP, 20, &syn)), Opened),
        ("destination options", v6(DESTINATION_OPTIONS, &options(TCP, 1, &syn)), Opened),
        ("authentication header", v6(AUTHENTICATION, &authentication(TCP, &syn)), Opened),
        ("routing, arrived", v6(ROUTING, &routing(TCP, 0, &syn)), Opened),
        ("routing, under way", v6(ROUTING, &routing(TCP, 1, &syn)), Foreign),
        (
            "hop-by-hop, routing, options",
            v6(HOP_BY_HOP, &options(ROUTING, 0, &routing(DESTINATION_OPTIONS, 0, &options(TCP, 0, &syn)))),
            Opened,
        ),
        ("eight headers", v6(nested.0, &nested.1), Opened),
        ("nine headers", v6(too_deep.0, &too_deep.1), Unreadable),
        ("atomic fragment", v6(FRAGMENT, &fragment(TCP, 0, false, &syn)), Opened),
        ("first fragment, IPv6", v6(FRAGMENT, &fragment(TCP, 0, true, &tcp(PORT, ACK))), Established),
        ("first fragment, flags hidden, IPv6", v6(FRAGMENT, &fragment(TCP, 0, true, &syn[..8])), Opened),
        ("later fragment, IPv6", v6(FRAGMENT, &fragment(TCP, 4, true, &syn)), Foreign),
        (
            "first fragment behind options",
            v6(DESTINATION_OPTIONS, &options(FRAGMENT, 0, &fragment(TCP, 0, true, &syn[..8]))),
            Opened,
        ),
        ("from multicast", ethernet(&[], IPV6, &ipv6(multicast, here_v6(), TCP, &syn)), Unreadable),
        // Lies and cuts, IPv6.
        ("half an IPv6 header", cut(v6(TCP, &syn), 40), Unreadable),
        ("IPv6 header alone", cut(v6(TCP, &syn), 54), Unreadable),
        ("payload length 0", with(v6(TCP, &syn), 19, 0), Unreadable),
        ("payload shorter than TCP", with(v6(TCP, &syn), 19, 19), Unreadable),
        ("version 4 in IPv6", with(v6(TCP, &syn), 14, 0x45), Unreadable),
        (
            "extension header longer than the packet",
            with(v6(HOP_BY_HOP, &options(TCP, 0, &syn)), 55, 255),
            Unreadable,
        ),
        ("extension header cut", cut(v6(HOP_BY_HOP, &options(TCP, 0, &syn)), 56), Unreadable),
    ]
}

pub(crate) fn every_packet_shape_gets_its_verdict() -> Result<()> {
    let mut bench = Bench::new(&config(1_000_000, 1_000_000))?;
    for (what, frame, expected) in shapes() {
        let verdict = bench.run(&frame).with_context(|| what.to_owned())?;
        ensure!(verdict == expected, "{what}: {verdict:?}, not {expected:?}");
    }
    Ok(())
}

pub(crate) fn a_penalty_drops_every_packet_that_can_be_read() -> Result<()> {
    let mut bench = Bench::new(&config(1_000_000, 1_000_000))?;
    let end = now_ns()? + HOUR_NS;
    for address in [IpAddr::from(THERE), IpAddr::from(there_v6())] {
        bench.programs.penalise(Source::from_address(address).context("a source")?, end)?;
    }
    for (what, frame, otherwise) in shapes() {
        let expected = match otherwise {
            Verdict::Opened | Verdict::Established => Verdict::Penalised,
            passed => passed,
        };
        let verdict = bench.run(&frame).with_context(|| what.to_owned())?;
        ensure!(verdict == expected, "{what}: {verdict:?}, not {expected:?}");
    }
    Ok(())
}

pub(crate) fn a_penalty_ends_by_itself() -> Result<()> {
    let mut bench = Bench::new(&config(100, 100))?;
    bench.programs.penalise(Source::from_v4(THERE), now_ns()? + HOUR_NS)?;
    ensure!(bench.run(&v4(&tcp(PORT, ACK)))? == Verdict::Penalised);
    bench.programs.penalise(Source::from_v4(THERE), now_ns()?.saturating_sub(100_000_000))?;
    ensure!(bench.run(&v4(&tcp(PORT, ACK)))? == Verdict::Established);
    bench.programs.penalise(Source::from_v4(THERE), now_ns()? + HOUR_NS)?;
    bench.programs.pardon(Source::from_v4(THERE))?;
    ensure!(bench.run(&v4(&tcp(PORT, ACK)))? == Verdict::Established);
    Ok(())
}

pub(crate) fn a_penalty_takes_nothing_from_a_rate() -> Result<()> {
    let mut bench = Bench::new(&config(1, 5))?;
    let syn = v4(&tcp(PORT, SYN));
    for known in [false, true] {
        if known {
            bench.known()?.insert(Source::from_v4(THERE), Known { held: 1, word: 0 }, 0)?;
        }
        bench.programs.penalise(Source::from_v4(THERE), now_ns()? + HOUR_NS)?;
        for _ in 0..10 {
            ensure!(bench.run(&syn)? == Verdict::Penalised, "known: {known}");
        }
        bench.programs.pardon(Source::from_v4(THERE))?;
        for _ in 0..5 {
            ensure!(bench.run(&syn)? == Verdict::Opened, "known: {known}");
        }
    }
    let mut verdict = Verdict::Opened;
    // In case that the second in which one more is opened begins between the two packets.
    for _ in 0..10 {
        bench.programs.pardon(Source::from_v4(THERE))?;
        bench.until_over_rate(&syn)?;
        bench.programs.penalise(Source::from_v4(THERE), now_ns()? + HOUR_NS)?;
        verdict = bench.run(&syn)?;
        if verdict == Verdict::OverRate {
            break;
        }
    }
    ensure!(verdict == Verdict::OverRate, "the first reason that is found counts: {verdict:?}");
    ensure!(bench.run(&v4(&tcp(PORT, ACK)))? == Verdict::Penalised);
    Ok(())
}

pub(crate) fn a_burst_of_connections_passes_and_no_more() -> Result<()> {
    // So slow that none is added while the test runs.
    let mut bench = Bench::new(&config(1, 20))?;
    let started = now_ns()?;
    let mut opened = 0;
    for _ in 0..50 {
        match bench.run(&v4(&tcp(PORT, SYN)))? {
            Verdict::Opened => opened += 1,
            Verdict::OverRate => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    let added = (now_ns()? - started) / 1_000_000_000 + 1;
    ensure!((20..=20 + added).contains(&opened), "{opened} opened");
    ensure!(bench.run(&v4(&tcp(PORT, ACK)))? == Verdict::Established, "open connections go on");
    ensure!(bench.run(&v6(TCP, &tcp(PORT, SYN)))? == Verdict::Opened, "another source is not meant");
    bench.known()?.insert(Source::from_v4(THERE), Known { held: 9, word: 0 }, 0)?;
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::Opened, "one more may be held");
    bench.known()?.insert(Source::from_v4(THERE), Known { held: 10, word: 0 }, 0)?;
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::OverHeld);
    bench.known()?.insert(Source::from_v4(THERE), Known { held: -1, word: 0 }, 0)?;
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::Opened, "a count below zero is none");
    Ok(())
}

pub(crate) fn an_exempt_network_is_never_dropped() -> Result<()> {
    let mut config = config(1, 1);
    config.exempt = vec!["198.51.100.0/24".parse()?, "2001:db8:7::/48".parse()?];
    let mut bench = Bench::new(&config)?;
    let end = now_ns()? + HOUR_NS;
    for address in [IpAddr::from(THERE), IpAddr::from(there_v6())] {
        bench.programs.penalise(Source::from_address(address).context("a source")?, end)?;
    }
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::Exempt);
    ensure!(bench.run(&v6(TCP, &tcp(PORT, ACK)))? == Verdict::Exempt);
    // More networks than lie beside the limits.
    let many = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "203.0.113.0/24", "198.51.100.0/24"];
    bench.programs.set_exempt(&many.map(|network| network.parse().unwrap()))?;
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::Exempt);
    ensure!(bench.run(&v6(TCP, &tcp(PORT, ACK)))? == Verdict::Penalised);
    bench.programs.set_exempt(&["2001:db8:7::/48".parse()?, "::/1".parse()?])?;
    ensure!(bench.run(&v4(&tcp(PORT, SYN)))? == Verdict::Penalised, "no IPv6 network holds an IPv4 source");
    ensure!(bench.run(&v6(TCP, &tcp(PORT, ACK)))? == Verdict::Exempt);
    Ok(())
}

/// Real packets with bytes changed and ends cut, and plain noise.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let shape = proptest::sample::select(shapes()).prop_map(|(_, frame, _)| frame);
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    let mutated = (shape, changes, 14_usize..200).prop_map(|(mut frame, changes, length)| {
        for (at, byte) in changes {
            // Behind the MAC addresses, where everything that is read lies.
            let at = 12 + at.index(frame.len() - 12);
            frame[at] = byte;
        }
        cut(frame, length)
    });
    prop_oneof![4 => mutated, 1 => proptest::collection::vec(any::<u8>(), 14..200)]
}

pub(crate) fn random_bytes_are_dropped_only_for_cause() -> Result<()> {
    let config = config(1, 1000);
    let mut bench = Bench::new(&config)?;
    let penalised = Source::from_v4(THERE);
    let limited = Source::from_address(IpAddr::from(there_v6())).context("a source")?;
    let mut known = bench.known()?;
    bench.programs.penalise(penalised, now_ns()? + HOUR_NS)?;
    let bench = std::cell::RefCell::new((&mut bench, &mut known));
    let mut runner =
        TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&frames(), |frame| {
        let (bench, known) = &mut *bench.borrow_mut();
        let fail = |error: anyhow::Error| TestCaseError::fail(format!("{error:?}"));
        let dropped = loop {
            // A burst ahead of its pace, anew for each packet, and for a second.
            let now = now_ns().map_err(fail)?;
            let word = now + 1000 * 1_000_000_000;
            known.insert(limited, Known { held: 0, word }, 0).map_err(|error| fail(error.into()))?;
            let dropped = bench.act(&frame).map_err(fail)? == XDP_DROP;
            if now_ns().map_err(fail)? - now < 1_000_000_000 {
                break dropped;
            }
        };
        let cause = packet::parse(frame.as_slice()).ok().and_then(|segment| {
            let Segment { path, port, opening } = segment;
            let ours = port == PORT
                && [maps::Address::from_v4(HERE), maps::Address::from_v6(here_v6())]
                    .contains(&path.destination());
            let source = path.source()?;
            (ours && (source == penalised || opening && source == limited)).then_some(segment)
        });
        prop_assert_eq!(dropped, cause.is_some(), "{:?}", cause);
        Ok(())
    });
    outcome.context("a packet was judged wrongly")
}

pub(crate) fn made_up_sources_evict_nobody_known() -> Result<()> {
    let entries = 2048;
    let mut bench = Bench::sized(&config(1, 5), &[(maps::RECENT, entries), (maps::KNOWN, entries)])?;
    let from =
        |source: [u8; 4], flags| ethernet(&[], IPV4, &ipv4(source, HERE, &[], 0, TCP, &tcp(PORT, flags)));
    let [penalised, flooding, hoarding] = [[203, 0, 113, 1], [203, 0, 113, 2], [203, 0, 113, 3]];
    bench.programs.penalise(Source::from_v4(penalised), now_ns()? + HOUR_NS)?;
    bench.known()?.insert(Source::from_v4(hoarding), Known { held: 10, word: 0 }, 0)?;
    bench.until_over_rate(&from(flooding, SYN))?;
    for number in 0..20 * entries {
        bench.act(&from((0x0a00_0000 | number).to_be_bytes(), SYN))?;
    }
    ensure!(bench.run(&from(penalised, ACK))? == Verdict::Penalised);
    ensure!(bench.run(&from(hoarding, SYN))? == Verdict::OverHeld);
    let known = bench.programs.known()?;
    ensure!(
        known.len() == 2 && known.iter().any(|(source, _)| *source == Source::from_v4(flooding)),
        "{known:?}"
    );
    Ok(())
}

pub(crate) fn drops_are_sampled_off_the_fast_path() -> Result<()> {
    let mut bench = Bench::new(&config(100, 100))?;
    bench.programs.penalise(Source::from_v4(THERE), now_ns()? + HOUR_NS)?;
    let frame = v4(&tcp(PORT, ACK));
    let options = TestRunOptions { data_in: Some(&frame), repeat: 10_000, ..TestRunOptions::new() };
    bench.programs.xdp()?.test_run(options)?;
    let events = bench.programs.events()?;
    // One in 1024 on each CPU that took part.
    ensure!((1..=9).contains(&events.len()), "{} events", events.len());
    for event in events {
        ensure!(
            event.source == Source::from_v4(THERE) && event.verdict == Verdict::Penalised.index(),
            "{event:?}"
        );
    }
    Ok(())
}
