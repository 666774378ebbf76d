//! The buffer between those who log and the file that is written to.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use crate::supervise::{Supervisor, fault};

/// Bytes that may wait to be written. Beyond them lines are dropped, rather than calls held up.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// How many times in a row there may be none before the thread sleeps until it is told of one. To wake it costs the call
/// that logs more than the line itself, so while calls come it looks by itself.
const QUIET: u32 = 50;

/// Where lines are put.
#[derive(Debug, Clone)]
pub(super) struct Buffer(Arc<Shared>);

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told of the first line after a while without, and of the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    /// Whether the thread waits to be told of a line.
    asleep: bool,
    ended: bool,
}

/// Writes what is left when it is dropped.
#[derive(Debug)]
pub struct Flush {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A buffer, and what writes it to standard error.
pub(super) fn to_standard_error() -> (Buffer, Flush) {
    let shared = Arc::<Shared>::default();
    (Buffer(Arc::clone(&shared)), Flush { shared, thread: None })
}

impl Flush {
    /// Starts the thread that writes lines as they come. Before, they wait: a process that gives up privileges must do so
    /// before it has threads.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn in_background(&mut self, supervisor: &Supervisor) -> io::Result<()> {
        let writing = Arc::clone(&self.shared);
        let write = move || write(&writing, io::stderr());
        self.thread = Some(supervisor.thread("log", write)?);
        Ok(())
    }
}

fn write(shared: &Shared, mut out: impl Write) {
    let (mut taken, mut quiet) = (Vec::new(), 0);
    loop {
        fault::point("log");
        let (dropped, ended) = {
            let mut state = shared.state.lock();
            state.asleep = quiet >= QUIET && state.waiting.is_empty();
            while state.asleep && !state.ended {
                shared.changed.wait(&mut state);
            }
            if !state.ended {
                shared.changed.wait_for(&mut state, GATHER);
            }
            std::mem::swap(&mut taken, &mut state.waiting);
            (std::mem::take(&mut state.dropped), state.ended)
        };
        quiet = if taken.is_empty() { quiet + 1 } else { 0 };
        // Nobody is left to be told when the log itself cannot be written.
        let mut written = out.write_all(&taken);
        if dropped > 0 {
            written = written.and_then(|()| {
                writeln!(out, "{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"lines\":{dropped}}}")
            });
        }
        if ended || written.is_err() && out.flush().is_err() {
            return;
        }
        taken.clear();
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        // What no thread has written: there was none, or it panicked.
        write(&self.shared, io::stderr());
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = &'a Shared;

    fn make_writer(&'a self) -> &'a Shared {
        &self.0
    }
}

impl Write for &Shared {
    /// Takes a whole line: the layer writes an event in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.waiting.len() + line.len() > MOST_WAITING {
            state.dropped += 1;
            return Ok(line.len());
        }
        state.waiting.extend_from_slice(line);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start the thread themselves")]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_written_in_order_and_the_last_at_the_end() {
        let (shared, written) = (Arc::<Shared>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (writing, out) = (Arc::clone(&shared), Out(Arc::clone(&written)));
        let thread = std::thread::spawn(move || write(&writing, out));
        let lines: Vec<_> = (0..1000).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            (&*shared).write_all(line.as_bytes()).unwrap();
        }
        drop(Flush { shared, thread: Some(thread) });
        assert_eq!(*written.lock(), lines.concat().into_bytes());
    }

    #[test]
    fn a_line_after_a_long_silence_is_written_at_once() {
        let (shared, written) = (Arc::<Shared>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (writing, out) = (Arc::clone(&shared), Out(Arc::clone(&written)));
        let thread = std::thread::spawn(move || write(&writing, out));
        while !shared.state.lock().asleep {
            std::thread::yield_now();
        }
        (&*shared).write_all(b"at last\n").unwrap();
        while written.lock().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(*written.lock(), b"at last\n");
        drop(Flush { shared, thread: Some(thread) });
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_not_memory() {
        let shared = Shared::default();
        let line = [b'x'; 1000];
        for _ in 0..MOST_WAITING / 1000 + 10 {
            (&shared).write_all(&line).unwrap();
        }
        let state = shared.state.lock();
        assert!(state.waiting.len() <= MOST_WAITING);
        assert_eq!(state.dropped, 10);
    }

    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
