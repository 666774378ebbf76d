//! What the operator asks of the kernel part.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The `[kernel]` table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelConfig {
    /// Whether to attach, and what to do when that is impossible.
    pub mode: Mode,
    /// Where to attach.
    pub interface: Interface,
    /// How to attach.
    pub attach: Attach,
    /// How fast one source may open connections, in the long run.
    pub connections_per_second: NonZeroU32,
    /// How many connections one source may open at once.
    pub connection_burst: NonZeroU32,
    /// How many connections one source may hold.
    pub concurrent_connections: NonZeroU32,
    /// How fast one source may call, in the long run.
    pub calls_per_second: NonZeroU32,
    /// How many calls one source may make at once.
    pub call_burst: NonZeroU32,
    /// Networks that are never shed and never charged: load balancers, health probes.
    pub exempt: Vec<IpNet>,
    /// Balancers whose PROXY header is believed (`listen.proxy_protocol_from`): never shed in the kernel, since what comes
    /// from them is others'. Those others are charged by the address in the header.
    pub balancers: Vec<IpNet>,
}

/// What to do about the kernel part at start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Attach; where that is impossible, warn and go on without.
    #[default]
    Auto,
    /// Attach; where that is impossible, do not start.
    Required,
    /// Do not attach.
    Off,
}

/// Where the XDP program is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interface {
    /// The interface that holds the listener's address, or the default route where it listens on every address.
    #[default]
    Auto,
    /// This one.
    Named(InterfaceName),
}

/// A network interface's name: at most 15 bytes, none of them `/` or white space (`dev_valid_name` in the kernel).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(String);

/// A text that no interface can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no interface name: 1 to 15 characters without '/', ':' and spaces")]
pub struct InvalidInterfaceName;

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attach {
    /// In the driver where it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver, before the kernel has spent anything on the packet.
    Native,
    /// In the network stack: works with every driver, after the packet's buffer is made.
    Generic,
}

/// [`KernelConfig::connections_per_second`] where the file says nothing.
pub const DEFAULT_CONNECTIONS_PER_SECOND: NonZeroU32 = at_least_one(50);
/// [`KernelConfig::connection_burst`] where the file says nothing.
pub const DEFAULT_CONNECTION_BURST: NonZeroU32 = at_least_one(100);
/// [`KernelConfig::concurrent_connections`] where the file says nothing.
pub const DEFAULT_CONCURRENT_CONNECTIONS: NonZeroU32 = at_least_one(200);
/// [`KernelConfig::calls_per_second`] where the file says nothing.
pub const DEFAULT_CALLS_PER_SECOND: NonZeroU32 = at_least_one(100);
/// [`KernelConfig::call_burst`] where the file says nothing.
pub const DEFAULT_CALL_BURST: NonZeroU32 = at_least_one(200);

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            interface: Interface::default(),
            attach: Attach::default(),
            connections_per_second: DEFAULT_CONNECTIONS_PER_SECOND,
            connection_burst: DEFAULT_CONNECTION_BURST,
            concurrent_connections: DEFAULT_CONCURRENT_CONNECTIONS,
            calls_per_second: DEFAULT_CALLS_PER_SECOND,
            call_burst: DEFAULT_CALL_BURST,
            exempt: vec![
                IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8)),
                IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
            ],
            balancers: Vec::new(),
        }
    }
}

impl KernelConfig {
    /// Whether an address lies in an exempt network.
    #[must_use]
    pub fn exempts(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.exempt.iter().any(|network| network.contains(&address))
    }

    /// The same for the kernel, which knows nothing of PROXY headers: balancers are exempt there.
    pub(super) fn by_packets(&self) -> Self {
        Self { exempt: [self.exempt.as_slice(), &self.balancers].concat(), ..self.clone() }
    }
}

impl InterfaceName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c == '\0');
        valid.then(|| Self(text.to_owned())).ok_or(InvalidInterfaceName)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Mode {
    /// The value as the file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_is_what_the_kernel_takes() {
        assert!("eth0".parse::<InterfaceName>().is_ok());
        assert!("enp0s31f6".parse::<InterfaceName>().is_ok());
        for wrong in ["", "a/b", "eth 0", "..", "sixteen-letters-"] {
            assert_eq!(wrong.parse::<InterfaceName>(), Err(InvalidInterfaceName), "{wrong:?}");
        }
    }

    #[test]
    fn loopback_is_exempt_unless_told_otherwise() {
        let config = KernelConfig::default();
        assert!(config.exempts("127.0.0.1".parse().unwrap()));
        assert!(config.exempts("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!config.exempts("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_balancer_is_exempt_by_its_packets_and_not_by_the_addresses_it_names() {
        let balancers = vec!["10.0.0.0/8".parse().unwrap()];
        let config = KernelConfig { balancers, ..KernelConfig::default() };
        let inside = "10.1.2.3".parse().unwrap();
        assert!(config.by_packets().exempts(inside));
        assert!(!config.exempts(inside));
    }
}
