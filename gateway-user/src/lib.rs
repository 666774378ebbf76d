//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod names;
pub mod secret;
pub mod tenant;
pub mod units;
