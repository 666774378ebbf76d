//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod limits;
pub mod names;
pub mod units;
