//! What can be in the way of the kernel part, and how to clear it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why the kernel part is not there, or could not be told something. One line each: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not load or attach programs.
    #[error(
        "loading the kernel programs needs {missing}: run as root, or add it to the container's capabilities, \
         or set kernel.mode = \"off\""
    )]
    Capability {
        /// The capabilities that are not effective.
        missing: String,
    },
    /// The kernel lacks what the programs use.
    #[error(
        "shedding needs Linux {} or newer, and this kernel is {running}: upgrade it, or set kernel.mode = \"off\"",
        OLDEST_KERNEL
    )]
    OldKernel {
        /// The running kernel's version.
        running: String,
    },
    /// There is no such interface.
    #[error("there is no network interface {name:?}: set kernel.interface to one of {present}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names that there are.
        present: String,
    },
    /// No interface holds the listener's address or a default route.
    #[error(
        "no interface holds {wanted}: set kernel.interface to the one that callers come in by, one of {present}"
    )]
    NoDefault {
        /// What was looked for.
        wanted: String,
        /// The names that there are.
        present: String,
    },
    /// Another program sits there.
    #[error(
        "another XDP program is attached to {interface}: detach it (`ip link set dev {interface} xdp off`), \
         or choose another kernel.interface"
    )]
    Occupied {
        /// The interface.
        interface: String,
    },
    /// The driver takes no XDP program.
    #[error("the driver of {interface} takes no XDP program: set kernel.attach = \"auto\" or \"generic\"")]
    NotNative {
        /// The interface.
        interface: String,
    },
    /// Attached in a way that would outlive the process.
    #[error(
        "the kernel gave no link for {interface}, so that the program would outlive the gateway: \
         run `ip link set dev {interface} xdp off` and upgrade the kernel"
    )]
    NoLink {
        /// The interface.
        interface: String,
    },
    /// No version-2 control group is mounted.
    #[error(
        "no cgroup2 is mounted, so that connections cannot be counted: mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoCgroup,
    /// The control group cannot be opened.
    #[error("cannot open the control group {}: mount /sys/fs/cgroup into the container", path.display())]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Attaching was refused for another reason.
    #[error("cannot attach to {place}")]
    Attach {
        /// The interface or the control group.
        place: String,
        /// Why.
        source: aya::programs::ProgramError,
    },
    /// bpf(2) is not there.
    #[error("this kernel has no bpf(2): run one with CONFIG_BPF_SYSCALL, or set kernel.mode = \"off\"")]
    NoBpf,
    /// bpf(2) is forbidden, whatever the capabilities.
    #[error(
        "bpf(2) is forbidden here in spite of the capabilities: allow it in the container's seccomp profile, \
         or set kernel.mode = \"off\""
    )]
    Forbidden,
    /// The kernel refused the object.
    #[error(
        "the kernel refused the programs: run a distribution's kernel of Linux {} or newer, \
         or set kernel.mode = \"off\"",
        OLDEST_KERNEL
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// The object lacks what this code expects of it.
    #[error("the embedded kernel object has no {name}: rebuild it with `cargo xtask ebpf`")]
    Object {
        /// A map's or program's name.
        name: &'static str,
    },
    /// A map could not be read or written.
    #[error("cannot use the map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// More networks than the map holds.
    #[error("kernel.exempt has more than {limit} networks: join neighbouring ones")]
    TooManyExempt {
        /// How many of each family it may have.
        limit: u32,
    },
    /// The system told nothing about itself.
    #[error("cannot read {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Capabilities belong to threads; others would keep theirs.
    #[error("privileges must be dropped before the process starts threads, and it has {threads}")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// Capabilities could not be dropped.
    #[error("cannot drop capabilities")]
    Privileges(#[source] caps::errors::CapsError),
}

impl KernelError {
    /// Why programs and maps could not be loaded.
    pub(super) fn load(error: aya::EbpfError) -> Self {
        match errno(&error) {
            Some(Errno::ENOSYS) => Self::NoBpf,
            Some(Errno::EPERM) => Self::Forbidden,
            _ => Self::Load(Box::new(error)),
        }
    }
}

/// What a system call answered, if it is in what caused an error.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let causes = std::iter::successors(Some(error), |cause| (*cause).source());
    let number =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error);
    number.map(Errno::from_raw)
}

/// Atomic compare-and-swap in programs needs 5.12; this is the first long-term one after.
pub(super) const OLDEST_KERNEL: &str = "5.15";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::describe;

    /// What is said when the kernel answers so to the making of a map.
    fn said(errno: Errno) -> String {
        let (name, io_error) = ("KNOWN".to_owned(), io::Error::from(errno));
        describe(&KernelError::load(aya::maps::MapError::CreateError { name, io_error }.into()))
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(said(Errno::ENOSYS).contains("CONFIG_BPF_SYSCALL"));
        assert!(said(Errno::EPERM).contains("seccomp"));
        let other = said(Errno::EINVAL);
        assert!(
            other.contains("Linux 5.15") && other.ends_with("`KNOWN`: Invalid argument (os error 22)"),
            "{other}"
        );
    }
}
