//! The loaded programs and their maps, with types.

use std::net::IpAddr;
use std::{fmt, io};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, SockOps, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use aya_log::EbpfLogger;
use gateway_ebpf::batch;
use gateway_ebpf::gcra::Rate;
use gateway_ebpf::maps::{self, Address, Event, Known, Limits, NetworkV4};
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;
use ipnet::IpNet;

use crate::kernel::config::KernelConfig;
use crate::kernel::error::KernelError;

/// The compiled programs; the build checks that their sources have not changed since.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway-ebpf/shed.bpf.o"));

const XDP: &str = "shed";
const SOCK_OPS: &str = "held";

/// One drop in so many is an event.
const SAMPLE_MASK: u64 = 1023;

/// What is enforced before anything was set: nothing.
const UNLIMITED: Limits = Limits {
    connections: Rate { interval_ns: 0, tolerance_ns: 0 },
    held: u64::MAX,
    sample_mask: u64::MAX,
    addresses: [Address::NONE; maps::NEAR_ADDRESSES],
    exempt_v4: [NetworkV4::NONE; maps::NEAR_NETWORKS],
    more_exempt_v4: 0,
    any_exempt_v6: 0,
    port: 0,
    more_addresses: 0,
};

/// The programs in the kernel, not yet attached anywhere, and gone with this value.
pub struct Programs {
    bpf: Ebpf,
    limits: Limits,
    log: EbpfLogger<TracingLog>,
}

/// Hands what the programs log to this process's own logs.
struct TracingLog;

impl Programs {
    /// Loads the programs with maps of their usual sizes.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load() -> Result<Self, KernelError> {
        Self::load_sized(&[])
    }

    /// Loads the programs with other sizes for the maps named.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load_sized(entries: &[(&'static str, u32)]) -> Result<Self, KernelError> {
        let log_level = u8::from(tracing::enabled!(tracing::Level::DEBUG)) * aya_log::Level::Debug as u8;
        let mut loader = EbpfLoader::new();
        // Nothing in the object is relocated against the kernel's types, so that it loads where those are not published.
        loader.btf(None).override_global(aya_log::LEVEL, &log_level, true);
        for (name, entries) in entries {
            loader.map_max_entries(name, *entries);
        }
        let mut bpf = loader.load(OBJECT).map_err(KernelError::load)?;
        xdp(&mut bpf)?.load().map_err(|error| KernelError::load(error.into()))?;
        sock_ops(&mut bpf)?.load().map_err(|error| KernelError::load(error.into()))?;
        let log = EbpfLogger::init_with_logger(&mut bpf, TracingLog)
            .map_err(|_absent| KernelError::Object { name: "AYA_LOGS" })?;
        Ok(Self { bpf, limits: UNLIMITED, log })
    }

    /// The XDP program.
    ///
    /// # Errors
    /// When the object has none.
    pub fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        xdp(&mut self.bpf)
    }

    /// The program at the control group's sockets.
    ///
    /// # Errors
    /// When the object has none.
    pub fn sock_ops(&mut self) -> Result<&mut SockOps, KernelError> {
        sock_ops(&mut self.bpf)
    }

    /// Sets what is enforced, from the next packet on.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_limits(&mut self, config: &KernelConfig, port: u16) -> Result<(), KernelError> {
        self.write_limits(Limits {
            connections: Rate::new(config.connections_per_second, config.connection_burst),
            held: u64::from(config.concurrent_connections.get()),
            sample_mask: SAMPLE_MASK,
            port: u32::from(port),
            ..self.limits
        })
    }

    /// Sets the exempt networks.
    ///
    /// # Errors
    /// When there are more than the map holds, or it cannot be written.
    pub fn set_exempt(&mut self, networks: &[IpNet]) -> Result<(), KernelError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(network.trunc()),
                IpNet::V6(network) => v6.push(network.trunc()),
            }
        }
        let (near, far) = v4.split_at(v4.len().min(maps::NEAR_NETWORKS));
        let mut exempt_v4 = UNLIMITED.exempt_v4;
        for (place, network) in exempt_v4.iter_mut().zip(near) {
            *place = NetworkV4::new(network.addr().octets(), network.netmask().octets());
        }
        let far: Vec<_> =
            far.iter().map(|net| Key::new(u32::from(net.prefix_len()), net.addr().octets())).collect();
        let v6: Vec<_> =
            v6.iter().map(|net| Key::new(u32::from(net.prefix_len()), net.addr().octets())).collect();
        replace(self.map_mut(maps::EXEMPT_V4)?, maps::EXEMPT_V4, &far)?;
        replace(self.map_mut(maps::EXEMPT_V6)?, maps::EXEMPT_V6, &v6)?;
        let (more_exempt_v4, any_exempt_v6) = (u32::from(!far.is_empty()), u32::from(!v6.is_empty()));
        self.write_limits(Limits { exempt_v4, more_exempt_v4, any_exempt_v6, ..self.limits })
    }

    /// Sets the addresses that the gateway is reached at; no others are looked at.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_local(&mut self, addresses: &[IpAddr]) -> Result<(), KernelError> {
        let wanted: Vec<Address> = addresses
            .iter()
            .take(maps::LOCAL_ENTRIES as usize)
            .map(|address| match address {
                IpAddr::V4(v4) => Address::from_v4(v4.octets()),
                IpAddr::V6(v6) => Address::from_v6(v6.octets()),
            })
            .collect();
        let (near, far) = wanted.split_at(wanted.len().min(maps::NEAR_ADDRESSES));
        let mut addresses = UNLIMITED.addresses;
        addresses.iter_mut().zip(near).for_each(|(place, address)| *place = *address);
        let more_addresses = u32::from(!far.is_empty());
        let mut map =
            HashMap::<_, Address, u8>::try_from(self.map_mut(maps::LOCAL)?).map_err(on(maps::LOCAL))?;
        let present: Vec<Address> = map.keys().collect::<Result<_, _>>().map_err(on(maps::LOCAL))?;
        for new in far.iter().filter(|address| !present.contains(address)) {
            map.insert(new, 1, 0).map_err(on(maps::LOCAL))?;
        }
        for gone in present.iter().filter(|address| !far.contains(address)) {
            map.remove(gone).map_err(on(maps::LOCAL))?;
        }
        if (addresses, more_addresses) == (self.limits.addresses, self.limits.more_addresses) {
            return Ok(());
        }
        self.write_limits(Limits { addresses, more_addresses, ..self.limits })
    }

    /// Drops every packet of a source until a time, in nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    pub fn penalise(&mut self, source: Source, end_ns: u64) -> Result<(), KernelError> {
        let mut map = HashMap::<_, Source, u64>::try_from(self.map_mut(maps::PENALTIES)?)
            .map_err(on(maps::PENALTIES))?;
        map.insert(source, end_ns, 0).map_err(on(maps::PENALTIES))
    }

    /// Lifts a source's penalty, if there is one.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn pardon(&mut self, source: Source) -> Result<(), KernelError> {
        remove(self.map_mut(maps::PENALTIES)?, maps::PENALTIES, source)
    }

    /// Packets by verdict since the programs were loaded.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn verdicts(&self) -> Result<[(Verdict, u64); Verdict::ALL.len()], KernelError> {
        let map = self.map(maps::VERDICTS)?;
        let map = PerCpuArray::<_, u64>::try_from(map).map_err(on(maps::VERDICTS))?;
        let mut counts = Verdict::ALL.map(|verdict| (verdict, 0));
        for (verdict, count) in &mut counts {
            let per_cpu = map.get(&verdict.index(), 0).map_err(on(maps::VERDICTS))?;
            *count = per_cpu.iter().sum();
        }
        Ok(counts)
    }

    /// Every source that has held a connection or overrun its rate, read by batches.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn known(&self) -> Result<Vec<(Source, Known)>, KernelError> {
        let Map::LruHashMap(data) = self.map(maps::KNOWN)? else {
            return Err(KernelError::Object { name: maps::KNOWN });
        };
        batch::entries(data, maps::KNOWN_ENTRIES as usize).map_err(on(maps::KNOWN))
    }

    /// The drops sampled since the last time.
    ///
    /// # Errors
    /// When there is no such map.
    pub fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        let mut ring = RingBuf::try_from(self.map_mut(maps::EVENTS)?).map_err(on(maps::EVENTS))?;
        let mut events = Vec::new();
        while let Some(bytes) = ring.next() {
            events.extend(Event::from_bytes(&bytes));
        }
        Ok(events)
    }

    /// Passes on what the programs logged: nothing unless debug logs were on when they were loaded.
    pub fn flush_log(&mut self) {
        self.log.flush();
    }

    fn write_limits(&mut self, limits: Limits) -> Result<(), KernelError> {
        let mut map = Array::<_, Limits>::try_from(self.map_mut(maps::LIMITS)?).map_err(on(maps::LIMITS))?;
        map.set(0, limits, 0).map_err(on(maps::LIMITS))?;
        self.limits = limits;
        Ok(())
    }

    fn map(&self, name: &'static str) -> Result<&Map, KernelError> {
        self.bpf.map(name).ok_or(KernelError::Object { name })
    }

    fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, KernelError> {
        self.bpf.map_mut(name).ok_or(KernelError::Object { name })
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

impl log::Log for TracingLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "kernel", "{}", record.args());
    }

    fn flush(&self) {}
}

fn xdp(bpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    program(bpf, XDP)
}

fn sock_ops(bpf: &mut Ebpf) -> Result<&mut SockOps, KernelError> {
    program(bpf, SOCK_OPS)
}

fn program<'a, P>(bpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = bpf.program_mut(name).ok_or(KernelError::Object { name })?;
    program.try_into().map_err(|_other_type| KernelError::Object { name })
}

/// Makes a trie hold exactly these keys.
fn replace<K: Pod + PartialEq>(
    map: &mut Map,
    name: &'static str,
    wanted: &[Key<K>],
) -> Result<(), KernelError> {
    if wanted.len() > maps::EXEMPT_ENTRIES as usize {
        return Err(KernelError::TooManyExempt { limit: maps::EXEMPT_ENTRIES });
    }
    let mut trie = LpmTrie::<_, K, u8>::try_from(map).map_err(on(name))?;
    for key in wanted {
        trie.insert(key, 1, 0).map_err(on(name))?;
    }
    let present: Vec<Key<K>> = trie.keys().collect::<Result<_, _>>().map_err(on(name))?;
    let same = |a: &Key<K>, b: &Key<K>| a.prefix_len() == b.prefix_len() && a.data() == b.data();
    for key in present.iter().filter(|key| !wanted.iter().any(|other| same(key, other))) {
        trie.remove(key).map_err(on(name))?;
    }
    Ok(())
}

fn remove(map: &mut Map, name: &'static str, source: Source) -> Result<(), KernelError> {
    let mut map = HashMap::<_, Source, u64>::try_from(map).map_err(on(name))?;
    match map.remove(&source) {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(KernelError::Map { name, source }),
    }
}

fn on(name: &'static str) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}
