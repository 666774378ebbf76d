//! New calls take turns, and streams under way go first. New connections do the same, and calls go first.
//!
//! Most of what a new call costs its worker comes before it is sent upstream: many times what it costs to pass a chunk on.
//! When calls come in a burst, chunks that have arrived meanwhile would wait for all of them.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// New calls may keep a worker from what has arrived for so long: about what one of them takes.
const QUANTUM: Duration = Duration::from_micros(50);

/// The order of a worker's new calls, and when the last of them gave way. The lock is the queue: who has it is the next to
/// go on, and keeps it while it gives way.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<Instant>);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Waits until it is a new call's turn: after those that came before it, and if they have had the worker for a while,
    /// after all that has arrived for others.
    pub(crate) async fn take(&self) {
        let mut gave_way = self.0.lock().await;
        if gave_way.elapsed() > QUANTUM {
            // The runtime runs what is ready, and asks the system what has arrived, before it comes back.
            tokio::task::yield_now().await;
            *gave_way = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "these calls are to keep their worker busy")]
    async fn what_arrives_while_calls_come_waits_for_one_of_them() {
        let turns = Arc::new(Turns::new());
        let (mut upstream, mut stream) = UnixStream::pair().unwrap();
        let started = Arc::new(AtomicU32::new(0));
        let calls: Vec<_> = (0..10)
            .map(|number| {
                let (turns, started) = (Arc::clone(&turns), Arc::clone(&started));
                tokio::spawn(async move {
                    std::thread::sleep(2 * QUANTUM);
                    turns.take().await;
                    assert_eq!(started.fetch_add(1, Ordering::Relaxed), number, "in order");
                    std::thread::sleep(2 * QUANTUM);
                })
            })
            .collect();
        let relay = tokio::spawn(async move {
            stream.read_u8().await.unwrap();
            started.load(Ordering::Relaxed)
        });
        // By now the calls are ready, and the relay waits; none has run.
        upstream.write_u8(1).await.unwrap();
        let before = relay.await.unwrap();
        assert!(before <= 1, "{before} calls went first");
        for call in calls {
            call.await.unwrap();
        }
    }
}
