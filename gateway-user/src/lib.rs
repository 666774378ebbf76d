//! The gateway as a library: what `aoai-gateway` runs.
#![forbid(unsafe_code)]

pub mod admin;
pub mod api;
pub mod assembly;
mod billing;
pub mod buffers;
mod call;
pub mod cli;
mod compute;
pub mod config;
mod core_dumps;
pub mod fleet;
pub mod gateway;
pub mod kernel;
pub mod ledger;
pub mod limits;
pub mod logging;
pub mod meter;
pub mod metrics;
pub mod model;
pub mod names;
mod pipeline;
mod relay;
pub mod reload;
pub mod reply;
pub mod request;
mod request_id;
pub mod secret;
pub mod serve;
mod session;
pub mod smoke;
pub mod store;
pub mod supervise;
mod tcp;
pub mod tenant;
pub mod tls;
pub mod tokens;
pub mod units;
pub mod upstream;

/// The gateway's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from; `unknown` where the build was not told.
pub const COMMIT: &str = env!("AOAI_GATEWAY_COMMIT");
