//! The Azure simulator and the harness of the end-to-end tests.

pub mod certificate;
pub mod harness;
pub mod simulator;
