//! One drop of many, told to user space. Never inlined: nothing of it is on the path of the other packets.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use gateway_ebpf::maps::Event;
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;

use super::maps;

/// Sends an event, and a log line where the loader asked for them.
#[inline(never)]
pub(super) fn dropped(ctx: &XdpContext, source: &Source, verdict: Verdict, at_ns: u64, count: u64) {
    maps::emit(Event { at_ns, count, source: *source, verdict: verdict.index(), reserved: 0 });
    debug!(ctx, "dropped packet {} with verdict {}", count, verdict.index());
}
