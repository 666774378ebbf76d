//! The Azure simulator and the harness of the end-to-end tests.

pub mod netns;
pub mod packets;
