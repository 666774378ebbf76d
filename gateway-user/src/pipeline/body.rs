//! Reading a request's body, within its bounds: in bytes, between two pieces, and for all of it. A long one is looked into
//! where that keeps no worker from its streams.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::buffers::{NoRoom, Reserved};
use crate::config::Listen;
use crate::names::TenantName;
use crate::reply::Refusal;
use crate::request::Envelope;
use crate::session::{Activity, Session, WorkerState};
use crate::tokens;
use crate::units::Tokens;

/// A request's body, all of it.
pub(super) struct Body {
    bytes: Bytes,
    /// What a long one asks for, which was found out elsewhere.
    asks: Option<Asks<'static>>,
}

/// What a body asks for, and the most tokens of its prompt where its bytes tell.
pub(super) type Asks<'a> = (Envelope<'a>, Option<Tokens>);

impl Body {
    /// Reads the whole body. One that arrives in one piece is not copied. Memory is reserved as it comes, not for the length
    /// that the caller announces. A long one is put together and looked into on a thread of its own.
    pub(super) async fn read(
        body: &mut Incoming,
        headers: &HeaderMap,
        session: &Session,
        listen: &Listen,
        (tenant, reserved): (&TenantName, &mut Reserved),
    ) -> Result<Self, Refusal> {
        let gathered = gather(body, headers, (&session.worker, listen), reserved).await?;
        if gathered.len() <= SHORT {
            return Ok(Self { bytes: gathered.into_bytes(), asks: None });
        }
        if session.gateway.compute.is_full(tenant) {
            return Err(Refusal::Overloaded);
        }
        let looking = session.gateway.compute.run(tenant, move |_stop| {
            let bytes = gathered.into_bytes();
            let (envelope, bound) = asks(&bytes)?;
            let asks = Some((envelope.into_owned(), bound));
            Ok(Self { bytes, asks })
        });
        // It can only fail by a panic.
        looking.await.unwrap_or(Err(Refusal::Overloaded))
    }

    /// The body itself, and what it asks for.
    pub(super) fn parsed(&mut self) -> Result<(&Bytes, Asks<'_>), Refusal> {
        let asks = match self.asks.take() {
            Some(asks) => asks,
            None => asks(&self.bytes)?,
        };
        Ok((&self.bytes, asks))
    }
}

fn asks(body: &Bytes) -> Result<Asks<'_>, Refusal> {
    let envelope = Envelope::parse(body).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    Ok((envelope, tokens::byte_bound(body)))
}

async fn gather(
    body: &mut Incoming,
    headers: &HeaderMap,
    (worker, listen): (&WorkerState, &Listen),
    reserved: &mut Reserved,
) -> Result<Gathered, Refusal> {
    let most = listen.max_body_bytes;
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(Refusal::BodyTooLarge(most));
    }
    let started = Instant::now();
    let mut gathered = Gathered::default();
    let mut of_turn = 0;
    while !body.is_end_stream() {
        let latest = Instant::now().min(started + earned(gathered.len(), listen));
        let frame = match tokio::time::timeout_at(latest + listen.header_timeout, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Refusal::InvalidRequest(format!("the body broke off: {error}")));
            }
            Ok(None) => break,
            Err(_elapsed) => return Err(Refusal::BodyTimeout),
        };
        // Trailers say nothing that the gateway acts on.
        let Ok(data) = frame.into_data() else { continue };
        if gathered.len() + data.len() > most {
            return Err(Refusal::BodyTooLarge(most));
        }
        of_turn += data.len();
        gathered.push(data, reserved).map_err(|NoRoom| Refusal::Overloaded)?;
        if of_turn >= TURN {
            of_turn = 0;
            worker.others_first().await;
        }
    }
    Ok(gathered)
}

/// A body of so many bytes is looked into where it was read: that takes about as long as all the rest of a call.
const SHORT: usize = 64 * 1024;

/// A body as far as it has come.
#[derive(Debug, Default)]
struct Gathered {
    /// The first piece, while there is no other.
    first: Bytes,
    /// All pieces, once there are several, in blocks: to move a long one to a larger place takes a worker milliseconds.
    blocks: Vec<Vec<u8>>,
    length: usize,
}

impl Gathered {
    const fn len(&self) -> usize {
        self.length
    }

    fn push(&mut self, data: Bytes, reserved: &mut Reserved) -> Result<(), NoRoom> {
        if self.length == 0 {
            reserved.grow(data.len())?;
            self.length = data.len();
            self.first = data;
            return Ok(());
        }
        let first = std::mem::take(&mut self.first);
        for mut rest in [&*first, &*data] {
            while !rest.is_empty() {
                let room = self.blocks.last().map_or(0, |block| block.capacity() - block.len());
                if room == 0 {
                    self.blocks.push(new_block(self.blocks.len(), reserved)?);
                    continue;
                }
                let (fits, later) = rest.split_at(room.min(rest.len()));
                if let Some(block) = self.blocks.last_mut() {
                    block.extend_from_slice(fits);
                }
                rest = later;
            }
        }
        // Its memory has gone with it.
        reserved.shrink(first.len());
        self.length += data.len();
        Ok(())
    }

    /// In one piece. Blocks are given back as they are copied.
    fn into_bytes(mut self) -> Bytes {
        if self.blocks.len() < 2 {
            return self.blocks.pop().map_or(self.first, Bytes::from);
        }
        let mut whole = Vec::with_capacity(self.length);
        for block in self.blocks {
            whole.extend_from_slice(&block);
        }
        Bytes::from(whole)
    }
}

/// Memory for the next part of a body: as much as most bodies need, then in larger steps.
fn new_block(before: usize, reserved: &mut Reserved) -> Result<Vec<u8>, NoRoom> {
    let size = if before == 0 { LEAST_BLOCK } else { BLOCK };
    reserved.grow(size)?;
    Ok(Vec::with_capacity(size))
}

/// Bytes of a body that are read before others have their turn: what comes over a fast network is always there, and takes
/// about as long as a call.
pub(super) const TURN: usize = 32 * 1024;
/// The first block: most bodies fit in.
const LEAST_BLOCK: usize = 16 * 1024;
const BLOCK: usize = 64 * 1024;

/// A body that a refusal leaves unread. Some clients lose the answer when their request is reset before all of it was sent
/// (curl before 8: "HTTP/2 stream was not closed cleanly"), and an HTTP/1.1 connection with an unread body cannot be used
/// again. So a body of at most 64 KiB is read and dropped before the answer, and a larger one after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread {
    /// The caller sends its body only once it is asked to (RFC 9110, 10.1.1), and after a refusal not at all.
    is_withheld: bool,
}

impl Unread {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { is_withheld: headers.contains_key(EXPECT) }
    }

    /// Drops the rest of a small body, unless it takes too long. A source under penalty is not waited for: only what it has
    /// sent already is dropped.
    pub(super) async fn discard(self, body: &mut Incoming, refusal: &Refusal, connection: &Activity) {
        if self.is_withheld || matches!(refusal, Refusal::BodyTimeout) {
            return;
        }
        let is_penalty = matches!(refusal, Refusal::SourceLimit { .. });
        if body.size_hint().lower() <= SMALL_BODY as u64 {
            let patience = if is_penalty { Duration::ZERO } else { PATIENCE };
            // Either way the answer goes out now.
            drop(tokio::time::timeout(patience, drain(body)).await);
        }
        if !body.is_end_stream() && !is_penalty {
            connection.cut_short();
        }
    }
}

/// Reads and drops a body until it ends, or turns out not to be small.
async fn drain(body: &mut Incoming) {
    let mut dropped = 0;
    while dropped <= SMALL_BODY && !body.is_end_stream() {
        let Some(Ok(frame)) = body.frame().await else { return };
        dropped += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body up to this size is read before its request is refused.
const SMALL_BODY: usize = 64 * 1024;
/// How long such a body may take: the time in which a caller across the world has sent it, and no place for long.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a body may have taken to come so far at the slowest, beside the time for its next piece: one that drips
/// would occupy its place for ever.
fn earned(bytes: usize, listen: &Listen) -> Duration {
    Duration::from_secs(bytes as u64) / listen.min_body_bytes_per_second.get()
}
