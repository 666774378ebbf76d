//! A child process that says where it listens, and that never outlives this one.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Longer than the demo's drain timeout; what is still running then is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many lines may come before the announcement is looked for.
const ANNOUNCEMENT_LINES: usize = 1024;

/// How often children and signals are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Set by Ctrl-C, by `kill`, and when the terminal goes away.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the signals that ask a process to end.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub(super) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot listen for signals")?;
        }
        Ok(Self(flag))
    }

    /// Whether one of the signals has come.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which of a child's two outputs is read here; the other goes to the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    /// Standard output, not shown.
    Stdout,
    /// Standard error, shown line by line.
    Stderr,
}

/// How waiting for a child's announcement ended.
#[derive(Debug)]
pub(super) enum Start<T> {
    /// The child said what was waited for.
    Listening(T),
    /// The child ended first.
    Ended(ExitStatus),
    /// A signal came first.
    Interrupted,
}

/// A running child; dropping it stops it.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
}

impl Service {
    /// Starts `command` in a process group of its own, so that the terminal's Ctrl-C reaches only this process, which
    /// then stops its children in order.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(super) fn start(name: &'static str, command: &mut Command, output: Output) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        match output {
            Output::Stdout => command.stdout(Stdio::piped()),
            Output::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let lines = match (child.stdout.take(), child.stderr.take()) {
            (Some(pipe), _) => read_lines(pipe, |_| {}),
            (None, Some(pipe)) => read_lines(pipe, |line| eprintln!("{line}")),
            (None, None) => mpsc::channel().1,
        };
        Ok(Self { name, child, lines })
    }

    /// The child's name, as a person knows it.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until `announcement` recognises a line of the child's output.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub(super) fn listening<T>(
        &mut self,
        interrupt: &Interrupt,
        announcement: impl Fn(&str) -> Option<T>,
    ) -> Result<Start<T>> {
        loop {
            match self.lines.recv_timeout(TICK) {
                Ok(line) => {
                    if let Some(found) = announcement(&line) {
                        return Ok(Start::Listening(found));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // All it had to say is shown; it is about to end.
                Err(RecvTimeoutError::Disconnected) => return Ok(Start::Ended(self.child.wait()?)),
            }
            if interrupt.came() {
                return Ok(Start::Interrupted);
            }
        }
    }

    /// How the child ended, if it has.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("the {}", self.name))
    }

    /// Asks the child to end, then insists. Does nothing to one that has ended.
    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // The shell's own `kill`: sending a signal needs unsafe code or one more crate.
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while asked.is_ok() && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause();
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("xtask: the {} may still be running: {error}", self.name);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads `pipe` to its end on a thread of its own, whoever listens: a full pipe would stop the child.
fn read_lines(pipe: impl Read + Send + 'static, show: impl Fn(&str) + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(ANNOUNCEMENT_LINES);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            show(&line);
            // Full once nobody waits for the announcement any more; what is lost then has been shown.
            sender.try_send(line).unwrap_or_default();
        }
    });
    lines
}

/// Waits for one tick.
#[expect(clippy::disallowed_methods, reason = "there is no runtime here whose worker could be blocked")]
pub(super) fn pause() {
    std::thread::sleep(TICK);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Service {
        Service::start("shell", Command::new("sh").args(["-c", script]), Output::Stdout).unwrap()
    }

    fn never() -> Interrupt {
        Interrupt(Arc::new(AtomicBool::new(false)))
    }

    #[test]
    fn the_line_that_announces_is_found_among_others() {
        let mut service = shell("echo warming up; echo port 7; exec sleep 60");
        let start =
            service.listening(&never(), |line| line.strip_prefix("port ").map(str::to_owned)).unwrap();
        assert!(matches!(start, Start::Listening(port) if port == "7"));
    }

    #[test]
    fn a_child_that_ends_instead_gives_its_status() {
        let start = shell("exit 3").listening(&never(), |_| None::<()>).unwrap();
        assert!(matches!(start, Start::Ended(status) if status.code() == Some(3)));
    }

    #[test]
    fn dropping_a_service_ends_it() {
        let service = shell("exec sleep 60");
        let process = format!("/proc/{}", service.child.id());
        drop(service);
        assert!(!std::path::Path::new(&process).exists());
    }
}
