//! The Azure simulator, the harness of the end-to-end tests, and the load generator of the benchmarks.

pub mod certificate;
pub mod harness;
pub mod load;
pub mod runaway;
pub mod simulator;
