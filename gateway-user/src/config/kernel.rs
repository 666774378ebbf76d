//! `[kernel]`: what is shed before it costs anything.

use std::num::NonZeroU32;

use ipnet::IpNet;

/// `[kernel]`: the programs that drop abusive sources, and what each source may do.
///
/// A source is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Whether the programs are used.
    pub mode: KernelMode,
    /// The network interface they attach to.
    pub interface: Interface,
    /// Where in the receive path they attach.
    pub attach: Attach,
    /// New connections a second, per source, in the long run.
    pub connections_per_second: NonZeroU32,
    /// New connections at once, per source.
    pub connection_burst: NonZeroU32,
    /// Connections open at once, per source.
    pub concurrent_connections: NonZeroU32,
    /// Calls a second, per source, in the long run.
    pub calls_per_second: NonZeroU32,
    /// Calls at once, per source.
    pub call_burst: NonZeroU32,
    /// Networks that are never shed: load balancers, health probes.
    pub exempt: Vec<IpNet>,
}

/// Whether the kernel programs are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelMode {
    /// Used where they can be; where not, a warning says why and the gateway runs without them.
    #[default]
    Auto,
    /// The gateway does not start without them.
    Required,
    /// Not used.
    Off,
}

/// The network interface that the programs attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interface {
    /// The one that holds the default route.
    #[default]
    DefaultRoute,
    /// The one with this name.
    Named(String),
}

/// Where in the receive path the XDP program attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attach {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack, behind any driver.
    Generic,
}
