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
use crate::gateway::Gateway;
use crate::names::TenantName;
use crate::reply::Refusal;
use crate::request::Envelope;
use crate::session::Activity;
use crate::tokens;
use crate::units::Tokens;

/// The whole body. One that arrives in one piece is not copied. Memory is reserved as it comes, not for the length that the
/// caller announces.
pub(super) async fn read(
    body: &mut Incoming,
    headers: &HeaderMap,
    listen: &Listen,
    reserved: &mut Reserved,
) -> Result<Bytes, Refusal> {
    let most = listen.max_body_bytes;
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(Refusal::BodyTooLarge(most));
    }
    let started = Instant::now();
    let mut gathered =
        Gathered { first: Bytes::new(), whole: Vec::new(), most: announced.unwrap_or(most), reserved };
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
        gathered.push(data).map_err(|NoRoom| Refusal::Overloaded)?;
        if of_turn >= TURN {
            of_turn = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(gathered.into_bytes())
}

/// A body of so many bytes is looked into where it was read: that takes about as long as all the rest of a call. A longer one
/// is on a thread of its own.
const SHORT: usize = 64 * 1024;

/// What a body asks for, and the most tokens of its prompt where its bytes tell.
pub(super) async fn parse<'a>(
    gateway: &Gateway,
    tenant: &TenantName,
    body: &'a Bytes,
) -> Result<(Envelope<'a>, Option<Tokens>), Refusal> {
    if body.len() <= SHORT {
        return parsed(body);
    }
    if gateway.compute.is_full(tenant) {
        return Err(Refusal::Overloaded);
    }
    let bytes = body.clone();
    let parsing = gateway
        .compute
        .run(tenant, move |_stop| parsed(&bytes).map(|(envelope, bound)| (envelope.into_owned(), bound)));
    // It can only fail by a panic.
    parsing.await.unwrap_or(Err(Refusal::Overloaded))
}

fn parsed(body: &Bytes) -> Result<(Envelope<'_>, Option<Tokens>), Refusal> {
    let envelope = Envelope::parse(body).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    Ok((envelope, tokens::byte_bound(body)))
}

/// A body as far as it has come.
struct Gathered<'a> {
    /// The first piece, while there is no other.
    first: Bytes,
    /// All pieces, once there are several.
    whole: Vec<u8>,
    /// How long the body can become.
    most: usize,
    reserved: &'a mut Reserved,
}

impl Gathered<'_> {
    fn len(&self) -> usize {
        self.first.len() + self.whole.len()
    }

    fn push(&mut self, data: Bytes) -> Result<(), NoRoom> {
        if self.len() == 0 {
            self.reserved.grow(data.len())?;
            self.first = data;
            return Ok(());
        }
        let needed = self.len() + data.len();
        if needed > self.whole.capacity() {
            let owned = self.first.len() + self.whole.capacity();
            // Doubled, so that no byte is moved more often than twice on the average, but not beyond what can come.
            let capacity = needed.max(owned.saturating_mul(2)).max(LEAST_GATHERED).min(self.most).max(needed);
            self.reserved.grow(capacity - owned)?;
            self.whole.reserve_exact(capacity - self.whole.len());
        }
        self.whole.extend_from_slice(&std::mem::take(&mut self.first));
        self.whole.extend_from_slice(&data);
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.whole.is_empty() { self.first } else { Bytes::from(self.whole) }
    }
}

/// Bytes of a body that are read before others have their turn: what comes over a fast network is always there, and takes
/// about as long as a call.
pub(super) const TURN: usize = 32 * 1024;
/// Room for a body that comes in several pieces: more than most bodies need.
const LEAST_GATHERED: usize = 16 * 1024;

/// A body that a refusal leaves unread. Some clients lose the answer when their request is reset before all of it was sent
/// (curl before 8: "HTTP/2 stream was not closed cleanly"), and an HTTP/1.1 connection with an unread body cannot be used
/// again. So what is small is read and dropped first. A large one is dropped after the answer, on a connection that ends.
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
