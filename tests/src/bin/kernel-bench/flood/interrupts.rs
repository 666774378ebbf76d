//! Interrupts of network interfaces, each on a core of its choice and counted.
//!
//! Between namespaces there are none: a veth pair receives on the sender's core and at the sender's expense. With receive
//! offload on and the other end's segmentation offload off it polls (NAPI) instead, as a network card's driver does, and
//! the kernel can poll in a thread, which can be bound to a core. Real-time priority stands for an interrupt's: it comes
//! before any process. An interface with a native XDP program polls anyway, so all arrangements are alike.

use std::collections::HashSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::process::pin;
use gateway_tests::netns::{Namespace, Net, UPLINK};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::Pid;

use crate::Cores;

/// The thread that polls the server's interface.
pub(super) struct Interrupts {
    server: Pid,
}

/// The server's port of the switch.
const PORT: &str = "port1";

impl Interrupts {
    /// Moves what the server's interface receives to the gateway's core, and what it sends to the other.
    pub(super) fn separate(net: &Net, cores: Cores) -> Result<Self> {
        for (namespace, interface) in [(&net.server, UPLINK), (&net.switch, PORT)] {
            namespace.command(&format!("ethtool -K {interface} gro on tso off gso off"))?;
        }
        poller(&net.switch, PORT, cores.load)?;
        Ok(Self { server: poller(&net.server, UPLINK, cores.gateway)? })
    }

    /// The CPU time of the server's interrupts so far, in nanoseconds.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        let path = format!("/proc/{}/schedstat", self.server.as_raw_nonzero());
        let times = fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(times.split_whitespace().next().with_context(|| path.clone())?.parse()?)
    }
}

/// How many packets have come to the server's interface, dropped by XDP or not.
pub(super) fn arrived(server: &Namespace) -> Result<u64> {
    count(server, UPLINK, 1)
}

/// How many packets to the server the switch could not pass on, because the server's interface had no room.
pub(super) fn lost(switch: &Namespace) -> Result<u64> {
    count(switch, PORT, 11)
}

/// One of an interface's counters: bytes, packets, errors, drops and four more received, then as many sent.
fn count(inside: &Namespace, interface: &str, column: usize) -> Result<u64> {
    inside.run(|| {
        let interfaces = fs::read_to_string("/proc/thread-self/net/dev")?;
        let counts =
            interfaces.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let count = counts.and_then(|counts| counts.split_whitespace().nth(column));
        Ok(count.with_context(|| format!("there is no interface {interface}"))?.parse()?)
    })
}

/// Makes an interface poll in a thread, on that core.
fn poller(inside: &Namespace, interface: &str, core: usize) -> Result<Pid> {
    let before = pollers(interface)?;
    inside.run(|| {
        // Only /sys shows the setting, and only the namespace's own.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        let path = format!("/sys/class/net/{interface}/threaded");
        fs::write(&path, "1").with_context(|| path.clone())
    })?;
    let new: Vec<Pid> = pollers(interface)?.difference(&before).copied().collect();
    let [poller] = *new.as_slice() else {
        anyhow::bail!("{interface} is polled by {} threads", new.len());
    };
    pin(Some(poller), core)?;
    let priority = std::process::Command::new("chrt")
        .args(["--fifo", "--pid", "1", &poller.as_raw_nonzero().to_string()])
        .output()
        .context("cannot run chrt: install util-linux")?;
    ensure!(priority.status.success(), "chrt: {}", String::from_utf8_lossy(&priority.stderr).trim());
    Ok(poller)
}

/// The kernel threads that poll interfaces of that name, in any namespace.
fn pollers(interface: &str) -> Result<HashSet<Pid>> {
    let prefix = format!("napi/{interface}-");
    let mut found = HashSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = number.and_then(Pid::from_raw)
            // A process that has ended meanwhile is none.
            && let Ok(name) = fs::read_to_string(entry.path().join("comm"))
            && name.starts_with(&prefix)
        {
            found.insert(pid);
        }
    }
    Ok(found)
}
