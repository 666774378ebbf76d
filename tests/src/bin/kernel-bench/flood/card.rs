//! The gateway's network card, at which the flood arrives.
//!
//! A tap device stands for it, whose other end is in the flooder's namespace. As a card's driver does, it asks a native XDP
//! program before it makes a socket buffer; the thread that writes to it is the flooder and the card's interrupt in one: on
//! the gateway's core, before any process, and with what has gathered since the last time. Its CPU time is all that the flood costs the gateway, what a driver would do for a packet included.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::process::{fraction, pin, thread_cpu_ns};
use gateway_tests::tap::Tap;

use super::schedule::Schedule;

/// A flood that arrives at a steady rate.
#[derive(Debug)]
pub(super) struct Card<'a> {
    pub(super) tap: &'a mut Tap,
    /// Which core its interrupts run on.
    pub(super) core: usize,
    /// Packets a second.
    pub(super) rate: u64,
    pub(super) frames: &'a [Vec<u8>],
}

/// What arrived, and at what cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) per_second: f64,
    pub(super) cpu_ns_per_packet: f64,
}

/// Between two interrupts, while there is a flood.
const MODERATION: Duration = Duration::from_micros(500);

impl Card<'_> {
    /// Runs to the end of the schedule.
    pub(super) fn run(self, schedule: Schedule) -> Result<Arrived> {
        pin(None, self.core)?;
        before_any_process()?;
        let mut frames = self.frames.iter().cycle();
        let (mut since, mut done, mut all, mut cpu_ns) = (schedule.start(), 0, 0, 0);
        while Instant::now() < schedule.end() {
            thread::park_timeout(MODERATION);
            let now = Instant::now();
            let Some(turn) = schedule.turn(now).filter(|turn| turn.flooded) else {
                continue;
            };
            if turn.since != since {
                (since, done) = (turn.since, 0);
            }
            let due = u64::try_from((now - since).as_nanos() * u128::from(self.rate) / 1_000_000_000)?;
            let before = thread_cpu_ns();
            for frame in frames.by_ref().take(usize::try_from(due - done)?) {
                self.tap.arrive(frame).context("the card takes no more")?;
            }
            cpu_ns += thread_cpu_ns() - before;
            all += due - done;
            done = due;
        }
        Ok(Arrived {
            per_second: fraction(all, 1) / schedule.flooded_seconds(),
            cpu_ns_per_packet: fraction(cpu_ns, all.max(1)),
        })
    }
}

/// Gives the calling thread real-time priority, as an interrupt has it.
fn before_any_process() -> Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let output = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
    let output = output.context("cannot run chrt: install util-linux")?;
    ensure!(output.status.success(), "chrt: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
