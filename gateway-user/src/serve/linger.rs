//! The end of a connection whose caller may still be sending. Where bytes come to a socket that is closed, its system resets
//! the connection, and the answer is lost with it: so it is closed for writing first, and read until the caller is done
//! (RFC 9112, 9.6).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// How long a connection is read after its end: as long as nginx waits for the next bytes.
const LINGER: Duration = Duration::from_secs(5);
/// What is read at once, and dropped.
const PIECE: usize = 16 * 1024;
/// From one piece to the next of all connections of a worker together: what is left of the longest body by default takes a
/// second, and whoever leaves much to be dropped takes next to nothing of the worker.
const PAUSE: Duration = Duration::from_millis(1);

/// What the connections of one worker share that are at their end: one of them is read at a time.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<()>);

impl Lane {
    /// Reads and drops bytes until the caller closes the connection, for [`LINGER`] at most.
    pub(super) async fn linger(&self, mut socket: impl AsyncRead + Unpin) {
        let dropped = async {
            let mut space = vec![0; PIECE];
            while socket.read(&mut space).await.is_ok_and(|length| length > 0) {
                let _turn = self.0.lock().await;
                sleep(PAUSE).await;
            }
        };
        // Either way it is over.
        drop(timeout(LINGER, dropped).await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_still_sends_is_read_until_it_closes() {
        let (near, mut far) = tokio::io::duplex(1024);
        let sending = async move {
            for _ in 0..100 {
                far.write_all(&[0; 4096]).await.unwrap();
            }
        };
        let lane = Lane::default();
        tokio::join!(sending, lane.linger(near));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_never_stops_is_not_read_for_ever() {
        let (near, _silent) = tokio::io::duplex(1024);
        let lane = Lane::default();
        lane.linger(near).await;
        let (near, mut far) = tokio::io::duplex(1024);
        let sending = async move { while far.write_all(&[0; 4096]).await.is_ok() {} };
        tokio::join!(sending, lane.linger(near));
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_read_no_faster_than_one() {
        let lane = Lane::default();
        let started = tokio::time::Instant::now();
        let one = || async {
            let (near, mut far) = tokio::io::duplex(PIECE);
            let sending = async move {
                for _ in 0..10 {
                    far.write_all(&[0; PIECE]).await.unwrap();
                }
            };
            tokio::join!(sending, lane.linger(near));
        };
        tokio::join!(one(), one(), one());
        assert!(started.elapsed() >= 30 * PAUSE, "{:?}", started.elapsed());
    }
}
