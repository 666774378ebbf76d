//! Attached as long as the process lives, wherever the interface goes, and not longer.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use gateway_tests::netns::{Namespace, Net, UPLINK};
use gateway_user::kernel::{Interface, KernelConfig, Mode, Shedder};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::scene::{IMPATIENCE, PATIENCE, Scene, ask, open, port, until};

/// A process that sheds; killed at the latest with this value.
struct Process {
    child: Child,
    lines: Vec<String>,
}

impl Process {
    fn start(inside: &Namespace, words: &str) -> Result<Self> {
        inside.run(|| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_shedder"))
                .args(words.split(' '))
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start the shedder")?;
            let output = child.stdout.take().context("no output")?;
            let mut lines = Vec::new();
            for line in BufReader::new(output).lines() {
                lines.push(line?);
                if lines.last().is_some_and(|line| line.starts_with("ready ")) {
                    return Ok(Self { child, lines });
                }
            }
            anyhow::bail!("the shedder ended with {:?} after {lines:?}", child.wait())
        })
    }

    /// SIGKILL: nothing of the process's own runs any more.
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("a shedder may be left: {error}");
        }
    }
}

/// The number of the XDP program on the server's interface.
pub(crate) fn xdp_program(server: &Namespace) -> Result<Option<u32>> {
    server.run(|| {
        let output = Command::new("ip").args(["-json", "-details", "link", "show", UPLINK]).output()?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let id = &links[0]["xdp"]["prog"]["id"];
        Ok(id.as_u64().map(u32::try_from).transpose()?)
    })
}

/// Every program that shares a map with this one, itself included.
pub(crate) fn relatives(id: u32) -> HashSet<u32> {
    let programs: Vec<_> = loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.map_ids().ok()??)))
        .collect();
    let own: Vec<u32> =
        programs.iter().filter(|(other, _)| *other == id).flat_map(|(_, maps)| maps.clone()).collect();
    programs.iter().filter(|(_, maps)| maps.iter().any(|map| own.contains(map))).map(|(id, _)| *id).collect()
}

pub(crate) fn loaded(ids: &HashSet<u32>) -> bool {
    loaded_programs().flatten().any(|program| ids.contains(&program.id()))
}

pub(crate) fn a_killed_process_leaves_nothing_attached() -> Result<()> {
    let net = Net::new()?;
    let port = port();
    let words = format!("--listen 0.0.0.0:{port} --connections-per-second 5 --connection-burst 5");
    let server: SocketAddr = format!("10.9.0.1:{port}").parse()?;
    for _ in 0..2 {
        let mut process = Process::start(&net.server, &words)?;
        let id = xdp_program(&net.server)?.context("nothing is attached")?;
        let programs = relatives(id);
        ensure!(programs.len() == 2, "the XDP program and the counting one: {programs:?}");
        net.abusive.run(|| {
            for _ in 0..10 {
                // Some are shed; all that matters is that the process dies amid them.
                drop(std::net::TcpStream::connect_timeout(&server, IMPATIENCE / 10));
            }
            Ok(())
        })?;
        process.kill()?;
        ensure!(xdp_program(&net.server)?.is_none(), "the program outlived its process");
        until("the programs are gone", || Ok(!loaded(&programs)))?;
    }
    let _restarted = Process::start(&net.server, &words)?;
    net.honest.run(|| ask(&mut std::net::TcpStream::connect_timeout(&server, PATIENCE)?, PATIENCE))
}

fn refusal(config: &KernelConfig, listener: &str) -> Result<String> {
    let attached = Shedder::attach(config.clone(), listener.parse()?);
    let error = attached.err().context("attached where it cannot be")?;
    let line = error.to_string();
    ensure!(!line.contains('\n'), "more than a line: {line}");
    Ok(line)
}

pub(crate) fn what_is_in_the_way_is_said() -> Result<()> {
    let config = open();
    let alone = Namespace::new()?;
    let line = alone.run(|| refusal(&config, "0.0.0.0:18000"))?;
    ensure!(
        line.contains("a default route") && line.contains("kernel.interface") && line.contains("lo"),
        "{line}"
    );

    let named = KernelConfig { interface: Interface::Named("nowhere0".parse()?), ..open() };
    let line = alone.run(|| refusal(&named, "0.0.0.0:18000"))?;
    ensure!(line.contains("\"nowhere0\"") && line.contains("one of lo"), "{line}");

    let scene = Scene::new(open())?;
    let line = scene.net.server.run(|| refusal(&config, "0.0.0.0:18000"))?;
    ensure!(line.contains("another XDP program") && line.contains(UPLINK), "{line}");

    let line = alone.run(|| {
        // Capabilities belong to this thread, which ends here.
        use caps::Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON};
        caps::set(None, caps::CapSet::Effective, &[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON].into())?;
        drop(Shedder::attach(open(), "127.0.0.1:18000".parse()?).context("these three are enough")?);
        caps::drop(None, caps::CapSet::Effective, CAP_NET_ADMIN)?;
        refusal(&config, "127.0.0.1:18000")
    })?;
    ensure!(line.contains("needs CAP_NET_ADMIN") && line.contains("kernel.mode"), "{line}");

    let line = alone.run(|| {
        without_cgroups()?;
        refusal(&config, "127.0.0.1:18000")
    })?;
    ensure!(line.contains("no cgroup2 is mounted") && line.contains("mount -t cgroup2"), "{line}");

    let auto = KernelConfig { mode: Mode::Auto, ..named };
    let shedder = alone.run(|| Ok(Shedder::attach(auto.clone(), "0.0.0.0:18000".parse()?)?))?;
    let status = shedder.status(Instant::now())?;
    ensure!(!shedder.is_attached() && status.attached.is_none());
    ensure!(status.absent_because.as_ref().is_some_and(|because| because.contains("nowhere0")), "{status:?}");
    Ok(())
}

/// Takes the version-2 control groups away from this thread's mounts alone.
fn without_cgroups() -> Result<()> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts")?;
    for line in mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        umount2(line.split(' ').nth(1).context("a mount point")?, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

pub(crate) fn a_renamed_interface_stays_protected() -> Result<()> {
    let scene = Scene::new(open())?;
    for words in ["link set uplink down", "link set uplink name renamed0", "link set renamed0 up"] {
        scene.net.server.ip(words)?;
    }
    scene.maintain()?;
    let interfaces = scene.status()?.attached.context("attached")?.interfaces;
    ensure!(
        interfaces.len() == 1 && interfaces[0].name == "renamed0" && interfaces[0].mode == "native",
        "{interfaces:?}"
    );
    scene.call(&scene.net.honest)
}

pub(crate) fn a_lost_interface_is_attached_when_it_is_back() -> Result<()> {
    let scene = Scene::new(open())?;
    let maintain = || -> Result<Vec<&'static str>> {
        scene.maintain()?;
        let interfaces = scene.status()?.attached.context("attached")?.interfaces;
        Ok(interfaces.iter().map(|interface| interface.mode).collect())
    };
    scene.net.server.ip("link del uplink")?;
    ensure!(maintain()? == ["gone"]);
    scene.net.server.ip("link add uplink type veth peer name other")?;
    ensure!(maintain()? == ["native"]);
    ensure!(xdp_program(&scene.net.server)?.is_some());
    Ok(())
}

pub(crate) fn maps_work_without_privileges() -> Result<()> {
    let net = Net::new()?;
    let process = Process::start(&net.server, &format!("--listen 0.0.0.0:{} --drop-privileges", port()))?;
    let [capabilities, maps, _ready] = process.lines.as_slice() else {
        anyhow::bail!("{:?}", process.lines);
    };
    let left = u64::from_str_radix(capabilities.trim_start_matches("CapEff:").trim(), 16)?;
    ensure!(left & !(1 << caps::Capability::CAP_BPF.index()) == 0, "{capabilities}");
    ensure!(maps == "maps work", "{maps}");
    Ok(())
}

pub(crate) fn loopback_is_attached_in_the_stack() -> Result<()> {
    let alone = Namespace::new()?;
    let (shedder, _listener) = alone.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Ok((Shedder::attach(open(), listener.local_addr()?)?, listener))
    })?;
    let interfaces = shedder.status(Instant::now())?.attached.clone().context("attached")?.interfaces;
    ensure!(
        interfaces.len() == 1 && interfaces[0].name == "lo" && interfaces[0].mode == "generic",
        "{interfaces:?}"
    );
    Ok(())
}
