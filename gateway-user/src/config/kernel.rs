//! `[kernel]`: what is shed before it costs anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net};

use super::document::Section;
use super::error::Problem;
use super::value;

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

impl Kernel {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let modes = value::choice(&[
            ("auto", KernelMode::Auto),
            ("required", KernelMode::Required),
            ("off", KernelMode::Off),
        ]);
        let places = value::choice(&[
            ("auto", Attach::Auto),
            ("native", Attach::Native),
            ("generic", Attach::Generic),
        ]);
        let mut count = |key, default| section.or(key, default, value::count32);
        let (connections_per_second, connection_burst) = (
            count("connections_per_second", DEFAULT_CONNECTIONS_PER_SECOND),
            count("connection_burst", DEFAULT_CONNECTION_BURST),
        );
        let concurrent_connections = count("concurrent_connections", DEFAULT_CONCURRENT_CONNECTIONS);
        let (calls_per_second, call_burst) =
            (count("calls_per_second", DEFAULT_CALLS_PER_SECOND), count("call_burst", DEFAULT_CALL_BURST));
        Self {
            mode: section.or("mode", KernelMode::default(), modes),
            interface: section.or("interface", Interface::default(), Interface::read),
            attach: section.or("attach", Attach::default(), places),
            connections_per_second,
            connection_burst,
            concurrent_connections,
            calls_per_second,
            call_burst,
            exempt: section.list("exempt", value::network).unwrap_or_else(loopback),
        }
    }
}

impl Interface {
    fn read(value: &toml::de::DeValue<'_>) -> Result<Self, Problem> {
        match value::text(value)? {
            "auto" => Ok(Self::DefaultRoute),
            // What Linux takes for a device's name: `dev_valid_name`, `IFNAMSIZ`.
            name if (1..=15).contains(&name.len())
                && !matches!(name, "." | "..")
                && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) =>
            {
                Ok(Self::Named(name.to_owned()))
            }
            other => Err(Problem::Interface(other.to_owned())),
        }
    }
}

/// This host itself is exempt by default.
fn loopback() -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    vec![v4.into(), IpAddr::V6(Ipv6Addr::LOCALHOST).into()]
}

const DEFAULT_CONNECTIONS_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap();
const DEFAULT_CONNECTION_BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
const DEFAULT_CONCURRENT_CONNECTIONS: NonZeroU32 = NonZeroU32::new(200).unwrap();
const DEFAULT_CALLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();
const DEFAULT_CALL_BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();
