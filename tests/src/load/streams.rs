//! Many streams at once: how long each chunk takes, and how much memory an open stream holds.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::load::LoadError;
use crate::load::connection::{Request, Target};
use crate::load::process::ProcessTree;
use crate::load::quantiles::Quantiles;
use crate::load::upstream::stamp;

/// What each stream asks for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Chunks of content in a stream.
    pub chunks: u64,
    /// Milliseconds between two of them.
    pub pause_ms: u64,
}

/// Runs `concurrent` callers, each reading `repeats` streams one after the other, and measures how long each chunk
/// took from the upstream's write to the caller's socket, by the stamp that the upstream puts in it. How long it then
/// waits for the caller is not counted, because all callers have one core.
///
/// The callers start one after the other over one pause between chunks, so that chunks do not come in one burst.
///
/// # Errors
///
/// The first caller's error; [`LoadError::StreamIncomplete`] when a chunk is missing.
pub async fn delays(
    target: &Target,
    key: &str,
    concurrent: u32,
    repeats: u32,
    pace: Pace,
) -> Result<Quantiles, LoadError> {
    let request = Arc::new(Request::stream(target.address(), key, pace.chunks, pace.pause_ms));
    let stagger = Duration::from_millis(pace.pause_ms) / concurrent;
    let mut callers = JoinSet::new();
    for caller in 0..concurrent {
        let mut connection = target.connect().await?;
        let request = Arc::clone(&request);
        callers.spawn(async move {
            sleep(SETTLE + stagger * caller).await;
            let mut delays = Vec::new();
            for _ in 0..repeats {
                let mut stream = Events::new(|stamp, arrived_ns| {
                    delays.push(u32::try_from(arrived_ns.saturating_sub(stamp)).unwrap_or(u32::MAX));
                });
                connection.call(request.bytes(), |body, arrived_ns| stream.feed(body, arrived_ns)).await?;
                stream.finish(pace.chunks)?;
            }
            Ok::<_, LoadError>(delays)
        });
    }
    let mut samples = Vec::new();
    while let Some(ended) = callers.join_next().await {
        samples.extend(ended.unwrap_or_else(|panic| Err(LoadError::Io(std::io::Error::other(panic))))?);
    }
    Quantiles::of(samples)
}

/// The proxy's memory without and with open streams.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Resident before the streams, after one call.
    pub idle_kib: u64,
    /// Resident while all streams are open.
    pub open_kib: u64,
    /// Open streams.
    pub streams: u32,
}

/// Opens `streams` streams, each with its own connection, and reads the proxy's memory while all are under way.
///
/// # Errors
///
/// The first stream's error.
pub async fn memory(
    target: &Target,
    key: &str,
    streams: u32,
    pace: Pace,
    proxy: &ProcessTree,
) -> Result<Memory, LoadError> {
    let mut first = target.connect().await?;
    first.call(Request::small(target.address(), key).bytes(), |_body, _arrived| ()).await?;
    first.close().await?;
    sleep(SETTLE).await;
    let idle_kib = proxy.resident_kib()?;

    let request = Arc::new(Request::stream(target.address(), key, pace.chunks, pace.pause_ms));
    let (flowing, mut flows) = mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    for _ in 0..streams {
        let mut connection = target.connect().await?;
        let (request, flowing) = (Arc::clone(&request), flowing.clone());
        callers.spawn(async move {
            let mut flowing = Some(flowing);
            let mut stream = Events::new(|_stamp, _arrived| drop(flowing.take()));
            connection.call(request.bytes(), |body, arrived_ns| stream.feed(body, arrived_ns)).await?;
            stream.finish(pace.chunks)
        });
    }
    // The channel ends when every stream has brought its first chunk and dropped its sender.
    drop(flowing);
    tokio::select! {
        biased;
        Some(ended) = callers.join_next() => match ended {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) => return Err(LoadError::NoSamples),
            Err(panic) => return Err(LoadError::Io(std::io::Error::other(panic))),
        },
        None::<()> = flows.recv() => {}
    }
    sleep(Duration::from_millis(3 * pace.pause_ms)).await;
    let open_kib = proxy.resident_kib()?;
    callers.shutdown().await;
    Ok(Memory { idle_kib, open_kib, streams })
}

/// The server-sent events of one stream, put together from the pieces in which they come.
struct Events<F> {
    on_chunk: F,
    pending: Vec<u8>,
    chunks: u64,
    done: bool,
}

impl<F: FnMut(u64, u64)> Events<F> {
    const fn new(on_chunk: F) -> Self {
        Self { on_chunk, pending: Vec::new(), chunks: 0, done: false }
    }

    fn feed(&mut self, bytes: &[u8], arrived_ns: u64) {
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = memchr::memmem::find(self.pending.get(start..).unwrap_or_default(), b"\n\n") {
            let event = self.pending.get(start..start + end).unwrap_or_default();
            start += end + 2;
            if let Some(stamp) = stamp(event) {
                self.chunks += 1;
                (self.on_chunk)(stamp, arrived_ns);
            }
            self.done |= event == b"data: [DONE]";
        }
        self.pending.drain(..start);
    }

    fn finish(self, expected: u64) -> Result<(), LoadError> {
        let Self { chunks, done, .. } = self;
        if done && chunks == expected {
            Ok(())
        } else {
            Err(LoadError::StreamIncomplete { chunks, expected })
        }
    }
}

/// From the last handshake to the first stream, or to reading what the proxy holds.
const SETTLE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::upstream::chunk;

    #[test]
    fn every_chunk_is_seen_wherever_it_is_split() {
        let wire = [chunk(7), chunk(8), b"data: [DONE]\n\n".to_vec()].concat();
        for piece in 1..wire.len() {
            let mut stamps = Vec::new();
            let mut events = Events::new(|stamp, arrived_ns| stamps.push((stamp, arrived_ns)));
            wire.chunks(piece).for_each(|piece| events.feed(piece, 9));
            events.finish(2).unwrap();
            assert_eq!(stamps, [(7, 9), (8, 9)]);
        }
    }

    #[test]
    fn a_stream_that_lost_a_chunk_is_an_error() {
        let mut events = Events::new(|_stamp, _arrived| ());
        events.feed(&chunk(7), 9);
        assert!(matches!(events.finish(1), Err(LoadError::StreamIncomplete { chunks: 1, expected: 1 })));
    }
}
