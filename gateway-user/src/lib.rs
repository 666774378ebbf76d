//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod api;
pub mod meter;
pub mod names;
pub mod tokens;
pub mod units;
