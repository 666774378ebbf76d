//! The sock_ops program: how many established connections each source holds.
//!
//! A connection counts from the end of its handshake, before user space accepts it, until its socket is closed, whatever
//! closed it: the kernel reports every way there as a change to state CLOSE. Only a socket that was counted is told to
//! report its states, so that flag is also the mark that it must be taken off again. Others' programs at the same control
//! group may have set it on sockets of theirs, which the port tells apart.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use gateway_ebpf::gcra::Word as _;
use gateway_ebpf::held as count;
use gateway_ebpf::maps::Known;
use gateway_ebpf::source::Source;

use super::maps;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Counts connections to the gateway's port by source.
#[sock_ops]
pub(crate) fn held(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    let established = op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
    let closed = op == BPF_SOCK_OPS_STATE_CB && ctx.arg(1) == BPF_TCP_CLOSE;
    if (established || closed)
        && maps::limits().is_some_and(|limits| ctx.local_port() == limits.port)
        && let Some(source) = source(&ctx)
    {
        if established {
            add(&ctx, &source);
        } else if let Some((held, _)) = maps::known(&source) {
            // No count only when it was evicted: the connections that the source held before are not owed.
            count::closed(&held);
        }
    }
    1
}

#[inline(always)]
fn add(ctx: &SockOpsContext, source: &Source) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags as i32).is_err() {
        return;
    }
    if let Some((held, _)) = maps::known(source) {
        count::opened(&held);
        return;
    }
    // Its rate goes with it: a first connection is no fresh start.
    let word = maps::recent(source).map_or(0, |word| word.load());
    if maps::remember_known(source, Known { held: 1, word }).is_ok() {
        return;
    }
    // Another CPU was first.
    if let Some((held, _)) = maps::known(source) {
        count::opened(&held);
    }
}

/// Whose connection it is.
#[inline(always)]
fn source(ctx: &SockOpsContext) -> Option<Source> {
    match ctx.family() {
        AF_INET => Some(Source::from_v4(ctx.remote_ip4().to_ne_bytes())),
        AF_INET6 => {
            let [a, b, c, d] = ctx.remote_ip6().map(u32::to_ne_bytes);
            let mut address = [0; 16];
            address[..4].copy_from_slice(&a);
            address[4..8].copy_from_slice(&b);
            address[8..12].copy_from_slice(&c);
            address[12..].copy_from_slice(&d);
            Source::from_v6(address)
        }
        _ => None,
    }
}
