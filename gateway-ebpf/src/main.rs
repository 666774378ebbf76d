//! The kernel programs: `shed` at XDP, `held` at a cgroup's sockets.
//!
//! Built for the kernel by `cargo xtask ebpf`; built for any other target it is a stub, so that the workspace needs no BPF
//! toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The target has no `AtomicU64::compare_exchange`, though the machine has the instruction.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), expect(internal_features))]

#[cfg(target_arch = "bpf")]
mod shed;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a loop that it can reach, so loading proves that no panic is possible.
    loop {}
}

/// No helper used here asks for a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "a section of its own cannot be named otherwise")]
// SAFETY: the loader reads this section as a licence, and nothing else lies in it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"MIT\0";
