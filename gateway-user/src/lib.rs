//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod limits;
pub mod meter;
pub mod metrics;
pub mod names;
pub mod reply;
pub mod request;
pub mod secret;
pub mod tenant;
pub mod tokens;
pub mod units;
mod upstream;
