//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod names;
pub mod units;
