//! File descriptors: as many as connections may need, with room for them made before the first call.
//!
//! The table in which Linux keeps them grows when one is opened that does not fit, and in a process of several threads
//! that takes a grace period of RCU (`expand_fdtable` in fs/file.c): some 15 ms, for which a worker and all its streams
//! would stand still.

use std::os::fd::AsFd;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides those of connections: listeners, logs, the store, watched files, programs in the kernel.
const OTHERS: u64 = 256;

/// Raises the soft limit and makes room, for so many connections of callers and as many to backends. `any` is any open
/// descriptor.
pub fn reserve(max_connections: usize, any: impl AsFd) {
    let connections = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(2);
    let wanted = connections.saturating_add(OTHERS);
    let allowed = raise(wanted);
    if allowed < connections {
        tracing::warn!(
            limit = allowed,
            wanted,
            "too few file descriptors for `listen.max_connections` with a backend's connection for each: raise the \
             limit (ulimit -Hn, LimitNOFILE=) or lower `listen.max_connections`"
        );
    }
    if let Err(error) = make_room(allowed.min(wanted), any) {
        tracing::debug!(error = %error, "no room is made for file descriptors: the first to come wait for it");
    }
}

/// Raises the soft limit to what is wanted, as far as the hard one lets it; gives the limit as it is then.
fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    if soft >= raised {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }) {
        Ok(()) => raised,
        Err(_refused) => soft,
    }
}

/// A table that once held a descriptor never becomes smaller.
fn make_room(descriptors: u64, any: impl AsFd) -> Result<(), Errno> {
    let last = i32::try_from(descriptors.saturating_sub(1)).unwrap_or(i32::MAX);
    fcntl_dupfd_cloexec(any, last).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_table_has_room_for_what_was_reserved() {
        let any = fs::File::open("/dev/null").unwrap();
        reserve(1000, &any);
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= 2256));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= 2256, "{size}");
    }
}
