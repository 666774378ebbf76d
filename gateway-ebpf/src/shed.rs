//! The programs, one file per hook.
#![expect(
    unsafe_code,
    reason = "the kernel boundary: map pointers, packet pointers and program entry points"
)]

mod frame;
mod held;
mod maps;
mod sample;
mod shared;
mod xdp;
