//! `[kernel]`: what is shed before it costs anything.

use toml::de::DeValue;

use super::document::Section;
use super::error::Problem;
use super::value;
use crate::kernel::{Attach, Interface, KernelConfig, Mode};

pub(super) fn read(section: &mut Section<'_>) -> KernelConfig {
    let modes = value::choice(&[("auto", Mode::Auto), ("required", Mode::Required), ("off", Mode::Off)]);
    let places =
        value::choice(&[("auto", Attach::Auto), ("native", Attach::Native), ("generic", Attach::Generic)]);
    let or = KernelConfig::default();
    let mode = section.or("mode", or.mode, modes);
    let interface = section.or("interface", or.interface, interface);
    let attach = section.or("attach", or.attach, places);
    let mut count = |key, default| section.or(key, default, value::count32);
    KernelConfig {
        mode,
        interface,
        attach,
        connections_per_second: count("connections_per_second", or.connections_per_second),
        connection_burst: count("connection_burst", or.connection_burst),
        concurrent_connections: count("concurrent_connections", or.concurrent_connections),
        calls_per_second: count("calls_per_second", or.calls_per_second),
        call_burst: count("call_burst", or.call_burst),
        exempt: section.list("exempt", value::network).unwrap_or(or.exempt),
        balancers: or.balancers,
    }
}

fn interface(value: &DeValue<'_>) -> Result<Interface, Problem> {
    match value::text(value)? {
        "auto" => Ok(Interface::Auto),
        name => {
            let named = name.parse().map_err(|_invalid| Problem::Interface(name.to_owned()))?;
            Ok(Interface::Named(named))
        }
    }
}
