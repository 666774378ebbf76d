//! The kernel programs' maps from outside: for tests and measurements that write what only the programs write.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapInfo};
use gateway_ebpf::maps::PENALTIES;
use gateway_ebpf::source::Source;
use gateway_user::kernel::Programs;
use nix::time::{ClockId, clock_gettime};

/// The programs' clock: nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Errors
/// When the system has no such clock.
pub fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}

/// One of the maps from a source to something.
///
/// # Errors
/// When the XDP program uses no map of that name.
pub fn source_map<V: Pod>(programs: &mut Programs, name: &str) -> Result<HashMap<MapData, Source, V>> {
    let ids = programs.xdp()?.info()?.map_ids()?.context("the program has no maps")?;
    let id = ids
        .into_iter()
        .find(|id| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(name)))
        .with_context(|| format!("the program has no map {name}"))?;
    let data = MapData::from_id(id)?;
    let map = if name == PENALTIES { Map::HashMap(data) } else { Map::LruHashMap(data) };
    Ok(HashMap::try_from(map)?)
}
