//! What the process may do, before and after the programs are attached.

use std::fs;

use caps::{CapSet, Capability};

use crate::kernel::error::{KernelError, OLDEST_KERNEL};

/// What loading and attaching takes: programs and maps; XDP and sockets; pointers into packets. `CAP_SYS_ADMIN` stands
/// for all.
const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// From this version on, maps can be used without a capability even where unprivileged BPF is disabled.
const MAPS_WITHOUT_CAPABILITY: Version = Version(5, 19);

/// A kernel release's first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// Checks that the process and the kernel can do what is about to be asked of them.
///
/// # Errors
/// When a capability is missing or the kernel is too old.
pub(super) fn check() -> Result<(), KernelError> {
    let release = release();
    if Version::parse(&release) < Version::parse(OLDEST_KERNEL) {
        return Err(KernelError::OldKernel { running: release });
    }
    let effective = caps::read(None, CapSet::Effective).map_err(KernelError::Privileges)?;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|capability| {
            !effective.contains(*capability) && !effective.contains(&Capability::CAP_SYS_ADMIN)
        })
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Capability { missing: missing.join(", ") }) }
}

/// Gives up, for good, every capability but what using the maps takes: none, or `CAP_BPF` on kernels before 5.19.
///
/// Capabilities belong to threads, so this must come before the process starts any; and after the listener is bound, where
/// its port takes a capability. Files that only their owner may read must be the process's own from then on.
///
/// # Errors
/// When the process has other threads already, or the kernel refuses.
pub fn drop_privileges() -> Result<(), KernelError> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(|source| KernelError::System { what: "the process's threads", source })?
        .count();
    if threads != 1 {
        return Err(KernelError::Threads { threads });
    }
    let permitted = caps::read(None, CapSet::Permitted).map_err(KernelError::Privileges)?;
    let mut kept = caps::CapsHashSet::new();
    if Version::parse(&release()) < Some(MAPS_WITHOUT_CAPABILITY) && permitted.contains(&Capability::CAP_BPF)
    {
        kept.insert(Capability::CAP_BPF);
    }
    // So that nothing comes back by executing a program; only who may set capabilities can give this up.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding).map_err(KernelError::Privileges)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(KernelError::Privileges)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(KernelError::Privileges)?;
    }
    Ok(())
}

/// As the kernel tells this process (uname(2)).
fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

impl Version {
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(Version::parse("6.18.44-fc"), Some(Version(6, 18)));
        assert!(Version::parse("5.4.0-150-generic") < Version::parse(OLDEST_KERNEL));
        assert!(Version::parse("5.15.0") >= Version::parse(OLDEST_KERNEL));
        assert!(Version::parse("10.1") > Version::parse("9.9"));
    }
}
