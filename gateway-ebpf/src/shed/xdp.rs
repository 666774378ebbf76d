//! The XDP program: a verdict for each packet, and the one place where a verdict becomes an action.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use gateway_ebpf::gcra::{Rate, Word as _};
use gateway_ebpf::held::connections;
use gateway_ebpf::maps::{Known, Limits};
use gateway_ebpf::packet::{self, Skip};
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;

use super::frame::Packet;
use super::{maps, sample};

/// Sheds packets to the gateway's port by the limits in the maps.
#[xdp]
pub(crate) fn shed(ctx: XdpContext) -> u32 {
    let verdict = judge(&ctx);
    match verdict {
        Verdict::Foreign | Verdict::Unreadable | Verdict::Established | Verdict::Opened | Verdict::Exempt => {
            XDP_PASS
        }
        Verdict::OverRate | Verdict::OverHeld | Verdict::Penalised => XDP_DROP,
    }
}

/// The verdict, counted.
#[inline(always)]
fn judge(ctx: &XdpContext) -> Verdict {
    let segment = match packet::parse(&Packet(ctx)) {
        Ok(segment) => segment,
        Err(Skip::Foreign) => return counted(Verdict::Foreign),
        Err(Skip::Unreadable) => return counted(Verdict::Unreadable),
    };
    let Some(limits) = maps::limits() else {
        return counted(Verdict::Foreign);
    };
    if u32::from(segment.port) != limits.port || !maps::is_local(limits, &segment.path.destination()) {
        return counted(Verdict::Foreign);
    }
    let Some(source) = segment.path.source() else {
        return counted(Verdict::Unreadable);
    };
    let (verdict, now_ns) = if segment.opening {
        let now_ns = now_ns();
        (open(limits, &source, now_ns), now_ns)
    } else {
        match maps::penalty_end(&source) {
            // Nearly every packet there is: it needs no clock.
            None => return counted(Verdict::Established),
            Some(end_ns) => {
                let now_ns = now_ns();
                let over = now_ns >= end_ns;
                (if over { Verdict::Established } else { Verdict::Penalised }, now_ns)
            }
        }
    };
    if !verdict.drops() {
        return counted(verdict);
    }
    // Asked last: nearly every packet is decided without, and a walk of a trie costs as much as a limit.
    if maps::is_exempt(limits, &segment.path) {
        return counted(Verdict::Exempt);
    }
    let count = maps::count(verdict);
    if count & limits.sample_mask == 0 {
        sample::dropped(ctx, &source, verdict, now_ns, count);
    }
    verdict
}

#[inline(always)]
fn counted(verdict: Verdict) -> Verdict {
    maps::count(verdict);
    verdict
}

/// Whether a source may open a connection, and takes it from its rate.
///
/// A flood's sources are known by their first drop. So they are looked for there first, and each drop after it takes one
/// look-up. Nothing is taken from a rate for a packet that a penalty drops.
#[inline(always)]
fn open(limits: &Limits, source: &Source, now_ns: u64) -> Verdict {
    let rate = limits.connections;
    let known = maps::known(source);
    if let Some((held, word)) = known {
        if connections(held.load() as i64) >= limits.held {
            return Verdict::OverHeld;
        }
        if rate.admit(word.load(), now_ns).is_none() {
            return Verdict::OverRate;
        }
    }
    if maps::penalty_end(source).is_some_and(|end_ns| now_ns < end_ns) {
        return Verdict::Penalised;
    }
    if let Some((_, word)) = known {
        return if rate.take(&word, now_ns) { Verdict::Opened } else { Verdict::OverRate };
    }
    open_unknown(rate, source, now_ns)
}

/// The same for a source that never held a connection nor overran its rate so far.
#[inline(always)]
fn open_unknown(rate: Rate, source: &Source, now_ns: u64) -> Verdict {
    let Some(word) = maps::recent(source) else {
        // Where even this cannot be stored there is nothing to hold the source to.
        let _ = maps::remember_recent(source, rate.first(now_ns));
        return Verdict::Opened;
    };
    if rate.take(&word, now_ns) {
        return Verdict::Opened;
    }
    // When this cannot be stored, the next packet tries again.
    let _ = maps::remember_known(source, Known { held: 0, word: word.load() });
    Verdict::OverRate
}

/// The monotonic clock at its last tick: a fifth of the exact clock's price, late by at most 10 ms.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: takes nothing and has no conditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
