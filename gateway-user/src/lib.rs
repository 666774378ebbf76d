//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod limits;
pub mod names;
pub mod request;
pub mod secret;
pub mod tenant;
pub mod tokens;
pub mod units;
