//! What the kernel counts: the CPU time and memory of a process with its children, and how busy a core was.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::load::LoadError;

/// The proxy: a process and its children, such as nginx's workers.
#[derive(Debug, Clone)]
pub struct ProcessTree {
    pids: Vec<u32>,
}

impl ProcessTree {
    /// `root` and what it has started so far.
    ///
    /// # Errors
    ///
    /// [`LoadError::Proc`] when there is no such process.
    pub fn of(root: u32) -> Result<Self, LoadError> {
        let mut pids = vec![root];
        let mut visited = 0;
        while let Some(pid) = pids.get(visited).copied() {
            visited += 1;
            let children = read(&format!("/proc/{pid}/task/{pid}/children"))?;
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        Ok(Self { pids })
    }

    /// User and system time so far, in steps of one clock tick.
    ///
    /// # Errors
    ///
    /// [`LoadError::Proc`] when one of the processes has ended.
    pub fn cpu(&self) -> Result<Duration, LoadError> {
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = read(&format!("/proc/{pid}/stat"))?;
            // The second field, the name, may hold spaces; utime and stime are the 12th and 13th after it (proc_pid_stat(5)).
            let fields = stat.rsplit_once(')').map_or("", |(_name, fields)| fields);
            ticks += fields
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// Resident memory in KiB, the pages that processes share counted for each.
    ///
    /// # Errors
    ///
    /// [`LoadError::Proc`] when one of the processes has ended.
    pub fn resident_kib(&self) -> Result<u64, LoadError> {
        let mut kib = 0;
        for pid in &self.pids {
            let status = read(&format!("/proc/{pid}/status"))?;
            let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            kib +=
                value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(kib)
    }
}

/// How a core has spent its time since boot, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub struct CoreTimes {
    busy: u64,
    all: u64,
}

impl CoreTimes {
    /// The counters of core number `core`.
    ///
    /// # Errors
    ///
    /// [`LoadError::Proc`] when `/proc/stat` cannot be read.
    pub fn of(core: usize) -> Result<Self, LoadError> {
        let name = format!("cpu{core}");
        let stat = read("/proc/stat")?;
        let line =
            stat.lines().find(|line| line.split_whitespace().next() == Some(&name)).unwrap_or_default();
        // user nice system idle iowait irq softirq steal (proc_stat(5)); guest time is part of user.
        let times = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse::<u64>().ok());
        let times: Vec<u64> = times.collect();
        let all = times.iter().sum();
        let idle = times.iter().skip(3).take(2).sum::<u64>();
        Ok(Self { busy: all - idle, all })
    }

    /// The share of the time from `earlier` to `self` in which the core worked, 0 to 1.
    pub fn busy_since(&self, earlier: &Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        fraction(self.busy.saturating_sub(earlier.busy), all)
    }
}

/// Binds a thread, or the calling one, to a core. What it starts from then on is bound there too.
///
/// # Errors
///
/// [`LoadError::Io`] when there is no such thread, or it may not run there.
pub fn pin(thread: Option<Pid>, core: usize) -> Result<(), LoadError> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(thread, &cores).map_err(std::io::Error::from)?)
}

/// The CPU time of the calling thread so far, in nanoseconds, what the kernel did for it included.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Nanoseconds of the system-wide monotonic clock, comparable between processes.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// `time` in nanoseconds.
pub(super) fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `part` of `whole`, for counts far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^53")]
pub fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn read(path: &str) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Proc { path: path.to_owned(), source })
}

/// `USER_HZ` is 100 on every architecture that the gateway runs on.
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let tree = ProcessTree::of(std::process::id()).unwrap();
        assert!(tree.resident_kib().unwrap() > 0);
        assert!(tree.cpu().unwrap() < Duration::from_secs(3600));
    }

    #[test]
    fn a_core_is_busy_between_never_and_always() {
        let earlier = CoreTimes { busy: 10, all: 100 };
        let later = CoreTimes { busy: 60, all: 200 };
        assert!((later.busy_since(&earlier) - 0.5).abs() < f64::EPSILON);
    }
}
