//! Processes that are bound to one core and end with the benchmark, however it ends.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity};

/// The two cores of the benchmark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    /// The proxy's alone.
    pub(super) proxy: usize,
    /// Shared by load generator and upstream.
    pub(super) load: usize,
}

impl Cores {
    /// The given cores, else the last and the first that this process may use.
    pub(super) fn choose(proxy: Option<usize>, load: Option<usize>) -> Result<Self> {
        let allowed = sched_getaffinity(None).context("reading the allowed cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let load = load.or_else(|| cores.next()).context("no core to run on")?;
        let proxy = proxy.or_else(|| cores.next_back()).unwrap_or(load);
        ensure!(proxy != load, "the benchmark needs two cores: one for the proxy, one for the load");
        Ok(Self { proxy, load })
    }
}

/// A running process on one core; ended when dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    child: Child,
    log: PathBuf,
}

impl Pinned {
    /// Starts `command` on `core`, its output going to `log`.
    pub(super) fn spawn(command: &Command, core: usize, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let errors = output.try_clone().context("sharing the log")?;
        let child = pinned(command, core)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id: the wrappers that bind the process to its core become the process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process listens on `address`.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().context("waiting for a process")?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("nothing listens on {address}; {} says: {}", self.log.display(), log.trim());
            }
            pause();
        }
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while asked && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            pause();
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `command` on one core, with files enough for thousands of connections, and ended by the kernel if this process is killed
/// before it can do so itself. Not ahead of what else the machine does: ksoftirqd has to bring it its packets.
pub(super) fn pinned(command: &Command, core: usize) -> Command {
    let mut pinned = Command::new("setpriv");
    // SIGTERM rather than SIGKILL, so that nginx takes its worker with it.
    pinned.args(["--pdeathsig", "TERM", "prlimit", FILE_LIMIT]);
    pinned.args(["taskset", "--cpu-list", &core.to_string()]);
    pinned.arg(command.get_program()).args(command.get_args());
    pinned
}

#[expect(clippy::disallowed_methods, reason = "nothing else runs in this process while it waits")]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const FILE_LIMIT: &str = "--nofile=16384";
