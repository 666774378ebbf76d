//! Which interface callers come in by, and which addresses are ours.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::kernel::config::Interface;
use crate::kernel::error::KernelError;

/// A network interface, known by its index whatever it is called later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What it was called last.
    pub(super) name: String,
    /// Its number in this network namespace.
    pub(super) index: u32,
}

// The calling thread's network namespace, which need not be the process's.
const ROUTES_V4: &str = "/proc/thread-self/net/route";
const ROUTES_V6: &str = "/proc/thread-self/net/ipv6_route";

const LOOPBACK: &str = "lo";

// Route flags (linux/route.h).
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;

/// Where the XDP program belongs for a listener: one interface, and loopback as well where it listens there.
///
/// # Errors
/// When there is no such interface, or none can be told.
pub(super) fn places(wanted: &Interface, listener: SocketAddr) -> Result<Vec<Place>, KernelError> {
    let address = listener.ip().to_canonical();
    let name = match wanted {
        Interface::Named(name) => Some(name.as_str().to_owned()),
        Interface::Auto if address.is_loopback() => None,
        Interface::Auto if address.is_unspecified() => Some(default_route()?),
        Interface::Auto => Some(holder(address)?),
    };
    let loopback = address.is_loopback().then(|| LOOPBACK.to_owned());
    let mut names: Vec<String> = name.into_iter().chain(loopback).collect();
    names.dedup();
    names.into_iter().map(place).collect()
}

/// The addresses that a listener is reached at.
///
/// # Errors
/// When the system does not tell.
pub(super) fn local_addresses(listener: SocketAddr) -> Result<Vec<IpAddr>, KernelError> {
    let address = listener.ip().to_canonical();
    if !address.is_unspecified() {
        return Ok(vec![address]);
    }
    Ok(addresses()?.into_iter().map(|(_, address)| address).collect())
}

/// An interface by its name.
pub(super) fn place(name: String) -> Result<Place, KernelError> {
    match if_nametoindex(name.as_str()) {
        Ok(index) => Ok(Place { name, index }),
        Err(_absent) => Err(KernelError::NoInterface { name, present: present() }),
    }
}

/// What an interface is called now; nothing when it is gone.
pub(super) fn name(index: u32) -> Option<String> {
    let interfaces = if_nameindex().ok()?;
    let found = interfaces.iter().find(|interface| interface.index() == index)?;
    Some(found.name().to_string_lossy().into_owned())
}

fn holder(wanted: IpAddr) -> Result<String, KernelError> {
    let holder = addresses()?.into_iter().find(|(_, address)| *address == wanted);
    holder
        .map(|(name, _)| name)
        .ok_or_else(|| KernelError::NoDefault { wanted: wanted.to_string(), present: present() })
}

fn addresses() -> Result<Vec<(String, IpAddr)>, KernelError> {
    let all = getifaddrs()
        .map_err(|errno| KernelError::System { what: "the interfaces' addresses", source: errno.into() })?;
    Ok(all
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            Some((interface.interface_name, v4.or(v6)?))
        })
        .collect())
}

fn default_route() -> Result<String, KernelError> {
    // A kernel without one of the families has no such file.
    let v4 = fs::read_to_string(ROUTES_V4).unwrap_or_default();
    let v6 = fs::read_to_string(ROUTES_V6).unwrap_or_default();
    default_route_v4(&v4)
        .or_else(|| default_route_v6(&v6))
        .ok_or_else(|| KernelError::NoDefault { wanted: "a default route".to_owned(), present: present() })
}

/// Columns: interface, destination, gateway, flags, references, use, metric, mask, … numbers in hexadecimal but the
/// metric.
fn default_route_v4(table: &str) -> Option<String> {
    let unspecified = format!("{:08X}", u32::from(Ipv4Addr::UNSPECIFIED));
    let routes = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, _, flags, _, _, metric, mask, ..] = columns.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = *destination == unspecified && *mask == unspecified;
        let usable = flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0;
        (is_default && usable).then(|| Some((metric.parse::<u32>().ok()?, (*name).to_owned())))?
    });
    routes.min().map(|(_, name)| name)
}

/// Columns, in hexadecimal: destination, its prefix, source, its prefix, next hop, metric, references, use, flags;
/// then the interface.
fn default_route_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix, _, _, _, metric, _, _, flags, name] = columns.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = *prefix == "00" && destination.bytes().all(|digit| digit == b'0');
        let usable = flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0 && *name != LOOPBACK;
        (is_default && usable).then(|| Some((u32::from_str_radix(metric, 16).ok()?, (*name).to_owned())))?
    });
    routes.min().map(|(_, name)| name)
}

/// The names that there are, for an error.
fn present() -> String {
    let Ok(interfaces) = if_nameindex() else {
        return "(unknown)".to_owned();
    };
    let names: Vec<_> = interfaces.iter().map(|interface| interface.name().to_string_lossy()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    const V6: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn the_default_route_of_least_metric_counts() {
        assert_eq!(default_route_v4(V4).as_deref(), Some("eth0"));
        assert_eq!(default_route_v6(V6).as_deref(), Some("eth2"));
    }

    #[test]
    fn no_default_route_is_none() {
        assert_eq!(default_route_v4(""), None);
        assert_eq!(default_route_v6(&V6.lines().last().unwrap().repeat(2)), None);
    }

    #[test]
    fn a_listener_on_loopback_is_shed_on_loopback() {
        let places = places(&Interface::Auto, "127.0.0.1:8443".parse().unwrap()).unwrap();
        assert_eq!(places, [Place { name: "lo".to_owned(), index: 1 }]);
    }

    #[test]
    fn an_unknown_interface_is_told_with_those_there_are() {
        let wanted = Interface::Named("nowhere0".parse().unwrap());
        let error = places(&wanted, "0.0.0.0:8443".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("\"nowhere0\"") && error.contains("lo"), "{error}");
    }
}
