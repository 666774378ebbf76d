//! The Azure simulator and the harness of the end-to-end tests.

pub mod kernel_maps;
pub mod netns;
pub mod packets;
