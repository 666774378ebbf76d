//! What the kernel programs and the gateway share: map layouts, packet layouts and the arithmetic of shedding.
//!
//! Nothing here knows the kernel or a clock: the programs bring packets and time, and the same code is tested on the
//! host. The programs themselves are the binary half of this package.
#![no_std]

#[cfg(feature = "user")]
pub mod batch;
pub mod gcra;
pub mod held;
pub mod maps;
pub mod packet;
pub mod source;
pub mod verdict;
