//! The control group whose sockets are counted: the gateway's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::kernel::error::KernelError;

/// Opens the process's own control group of version 2.
///
/// Its own and not the root: other services on the machine may listen on the same port in namespaces of theirs.
///
/// # Errors
/// When no version-2 hierarchy is mounted, or the group cannot be opened.
pub(super) fn own() -> Result<(PathBuf, File), KernelError> {
    let mounts = read("/proc/thread-self/mounts", "the mounts")?;
    let mount = mount_point(&mounts).ok_or(KernelError::NoCgroup)?;
    let memberships = read("/proc/thread-self/cgroup", "the process's control groups")?;
    let path = Path::new(mount).join(membership(&memberships).unwrap_or_default());
    // Seen from another namespace the path may not be there; then what is mounted is the process's own already.
    let path = if path.is_dir() { path } else { PathBuf::from(mount) };
    let open = File::open(&path);
    open.map(|file| (path.clone(), file)).map_err(|source| KernelError::Cgroup { path, source })
}

/// Columns: device, mount point, type, …
fn mount_point(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut columns = line.split(' ').skip(1);
        let point = columns.next()?;
        (columns.next()? == "cgroup2").then_some(point)
    })
}

/// The path within the version-2 hierarchy, which has the number 0 and no controllers (cgroups(7)).
fn membership(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::/"))
}

fn read(path: &'static str, what: &'static str) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(|source| KernelError::System { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_hierarchy_is_found_beside_version_1() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("proc /proc proc rw 0 0\n"), None);
        assert_eq!(membership("12:cpu:/a\n0::/system.slice/b.service\n"), Some("system.slice/b.service"));
        assert_eq!(membership("0::/\n"), Some(""));
    }
}
