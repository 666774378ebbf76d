//! What the kernel programs and the gateway share: map layouts and the arithmetic of shedding.
#![no_std]
