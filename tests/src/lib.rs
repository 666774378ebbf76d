//! The Azure simulator, the harness of the end-to-end tests, and the load generator of the benchmarks.

pub mod certificate;
pub mod harness;
pub mod kernel_maps;
pub mod load;
pub mod neighbour;
pub mod netns;
pub mod packets;
pub mod runaway;
pub mod simulator;
pub mod tap;
