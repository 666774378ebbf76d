//! What is compared: two proxies, alike from outside.

use std::net::SocketAddr;

use clap::ValueEnum;

use super::process::Pinned;

/// One of the two proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// nginx, doing no more than TLS and forwarding.
    Nginx,
    /// The gateway, doing everything.
    Gateway,
}

/// A proxy that listens.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where it listens, with TLS.
    pub(super) address: SocketAddr,
    /// The key that it lets in.
    pub(super) key: String,
    /// The process; ended when dropped.
    pub(super) process: Pinned,
}
