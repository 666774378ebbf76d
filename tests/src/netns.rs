//! Network namespaces of a test's own: nothing of them outlives the process.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, there as long as this value is. Without a name: no directory, no mount.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a namespace whose loopback is up.
    ///
    /// # Errors
    /// When the process may not (it takes `CAP_SYS_ADMIN`), or `ip` is missing.
    pub fn new() -> Result<Self> {
        // A thread of its own: the namespace is a thread's, and the caller's must not change.
        let file = thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
                File::open("/proc/thread-self/ns/net").context("cannot open the new namespace")
            });
            joined(made.join())
        })?;
        let namespace = Self { file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs something in the namespace; what it starts (threads, processes, sockets) stays there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what the closure answered.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
                inside()
            });
            joined(entered.join())
        })
    }

    /// Runs `ip` with these words in the namespace.
    ///
    /// # Errors
    /// When it cannot be run or does not succeed.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.command(&format!("ip {words}"))
    }

    /// Runs a program with its words, split at spaces, in the namespace.
    ///
    /// # Errors
    /// When it cannot be run or does not succeed.
    pub fn command(&self, line: &str) -> Result<()> {
        self.run(|| {
            let mut words = line.split_whitespace();
            let program = words.next().context("no program")?;
            let output = Command::new(program)
                .args(words)
                .output()
                .with_context(|| format!("cannot run {program}: install it from the distribution"))?;
            ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(())
        })
    }

    /// A path by which this process's children find the namespace.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

fn joined<T>(outcome: thread::Result<Result<T>>) -> Result<T> {
    match outcome {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A server and two clients on one switch, each in a namespace of its own.
///
/// The server is `10.9.0.1` and `fd00:9::1` on its interface `uplink`, which holds its default route; the clients are
/// `10.9.0.2` and `10.9.0.3`, `fd00:9:0:2::2` and `fd00:9:0:3::3`, on theirs.
#[derive(Debug)]
pub struct Net {
    /// Holds the interface that is shed on.
    pub server: Namespace,
    /// 10.9.0.2, who misbehaves.
    pub abusive: Namespace,
    /// 10.9.0.3, who does not.
    pub honest: Namespace,
    _switch: Namespace,
}

/// The server's IPv4 address.
pub const SERVER_V4: [u8; 4] = [10, 9, 0, 1];
/// The abusive client's IPv4 address.
pub const ABUSIVE_V4: [u8; 4] = [10, 9, 0, 2];
/// The honest client's IPv4 address.
pub const HONEST_V4: [u8; 4] = [10, 9, 0, 3];
/// The server's IPv6 address.
pub const SERVER_V6: &str = "fd00:9::1";
/// The server's interface.
pub const UPLINK: &str = "uplink";

impl Net {
    /// Builds it.
    ///
    /// # Errors
    /// When namespaces or interfaces cannot be made.
    pub fn new() -> Result<Self> {
        let switch = Namespace::new()?;
        switch.ip("link add name bridge type bridge")?;
        switch.ip("link set bridge up")?;
        let [server, abusive, honest] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        for (number, end) in [(1, &server), (2, &abusive), (3, &honest)] {
            let prefix = if number == 1 {
                "fd00:9::1/32".to_owned()
            } else {
                format!("fd00:9:0:{number}::{number}/32")
            };
            switch.ip(&format!("link add port{number} type veth peer name {UPLINK} netns {}", end.path()))?;
            switch.ip(&format!("link set port{number} master bridge up"))?;
            end.ip(&format!("addr add 10.9.0.{number}/24 dev {UPLINK}"))?;
            end.ip(&format!("addr add {prefix} dev {UPLINK} nodad"))?;
            end.ip(&format!("link set {UPLINK} up"))?;
            end.ip(&format!("route add default via 10.9.0.{}", if number == 1 { 2 } else { 1 }))?;
        }
        Ok(Self { server, abusive, honest, _switch: switch })
    }

    /// Puts two clients behind the abusive client's address, which translates theirs (NAT): the server sees one source.
    ///
    /// # Errors
    /// When they cannot be made, or `nft` is missing.
    pub fn behind_one_address(&self) -> Result<[Namespace; 2]> {
        let inside = [Namespace::new()?, Namespace::new()?];
        for (number, client) in inside.iter().enumerate() {
            let path = client.path();
            self.abusive.ip(&format!("link add inside{number} type veth peer name {UPLINK} netns {path}"))?;
            self.abusive.ip(&format!("addr add 192.168.{number}.1/24 dev inside{number}"))?;
            self.abusive.ip(&format!("link set inside{number} up"))?;
            client.ip(&format!("addr add 192.168.{number}.2/24 dev {UPLINK}"))?;
            client.ip(&format!("link set {UPLINK} up"))?;
            client.ip(&format!("route add default via 192.168.{number}.1"))?;
        }
        self.abusive
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets"))?;
        for words in [
            "add table ip nat",
            "add chain ip nat out { type nat hook postrouting priority 100 ; }",
            &format!("add rule ip nat out oifname {UPLINK} masquerade"),
        ] {
            self.abusive.command(&format!("nft {words}"))?;
        }
        Ok(inside)
    }
}
