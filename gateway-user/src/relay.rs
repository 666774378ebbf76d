//! A response on its way from upstream to the caller: forwarded first, metered after.
//!
//! A stream's chunk is handed to the caller's connection as soon as it is read, and counted only once that connection
//! has flushed it. Back-pressure is hyper's: while the caller does not read, nothing is read from upstream.

mod document;
mod held;
mod shared;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Frame;
use tokio::time::Sleep;

use crate::api::Api;
use crate::billing::{End, Metered};
use crate::buffers::Reserved;
use crate::call::{CALLER_GONE, Call};
use crate::fleet::Asking;
use crate::limits::{Admission, Ceiling};
use crate::meter::cut::{self, Cut};
use crate::meter::hide::UsageHider;
use crate::meter::inflate::Inflater;
use crate::meter::stream::{Failure, StreamMeter};
use crate::reply::{Refusal, token_value};
use crate::supervise::fault;
use crate::units::Tokens;
use crate::upstream::connection::{Connection, ReceiveError};
use crate::upstream::pool::Pool;

pub(crate) use document::Document;
pub(crate) use held::HeldAnswer;
pub(crate) use shared::{Delivery, Relays};

/// `x-tokens-consumed`.
pub(crate) const TOKENS_CONSUMED: HeaderName = HeaderName::from_static("x-tokens-consumed");
/// How often an open call is looked after: a revoked key ends it within twice that.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(400);
/// How long a stream that is to end may take to come to the end of an event before it is broken off.
const PATIENCE: Duration = Duration::from_millis(200);
/// Forwarded bytes that wait to be counted together, behind the caller's back. Fewer wait until the response is looked
/// after.
const COUNT_TOGETHER: usize = 1024;
/// Forwarded bytes that may wait while more of them arrive at once.
const MOST_UNCOUNTED: usize = 16 * 1024;
/// Bytes that are passed on and counted before others have their turn: what has come in a burst, or has waited for a slow
/// reader, takes longer than a call.
const TURN: usize = 32 * 1024;
/// What a hold grows by when a stream has used it up.
const GROWTH: Tokens = Tokens::new(256);

/// What carries a response from upstream.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) connection: Box<Connection>,
    /// Where the connection leads: its place in the pool.
    pub(crate) authority: Arc<str>,
    /// Between two pieces of the response.
    pub(crate) idle_timeout: Duration,
    /// How long the caller may take none of it.
    pub(crate) stall_timeout: Duration,
}

/// How a response's usage is read.
#[derive(Debug)]
pub(crate) enum Meter {
    /// A stream of events.
    Stream {
        api: Api,
        meter: Box<StreamMeter>,
        /// Inflates a copy for the meter, where the stream is compressed.
        inflater: Option<Box<Inflater>>,
        /// Leaves out the usage chunk, where the caller did not ask for it.
        hider: Option<Box<UsageHider>>,
        /// Output tokens booked so far.
        spent: Tokens,
    },
    /// One JSON document.
    Json(Box<Document>),
    /// Nothing that was billed: an error of upstream's.
    Unbilled,
}

/// Why a response broke off. The connection to the caller breaks off too, so that it cannot be taken for complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("upstream broke off: {0}")]
    Upstream(ReceiveError),
    #[error("upstream sent nothing for {0:?}")]
    Idle(Duration),
    #[error("it may not go on: {0}")]
    Ended(&'static str),
}

/// A stream that is to end as soon as all that has passed are whole events.
#[derive(Debug)]
struct Ending {
    refusal: Refusal,
    since: Instant,
}

/// A response body that relays upstream's.
#[derive(Debug)]
pub(crate) struct Relay {
    call: Call,
    /// `None` once upstream's body has ended or was given up.
    source: Option<Source>,
    /// Why it was given up, to be told once all that came before has left.
    broken: Option<RelayError>,
    pool: Arc<Pool>,
    meter: Meter,
    /// To be forwarded.
    ready: VecDeque<Bytes>,
    /// The memory of what was read before the relay began, as far as it waits.
    reserved: Option<Reserved>,
    /// Why and since when it is to end. All that was forwarded has been counted then.
    ending: Option<Ending>,
    /// Why it was ended, to be told the caller once what the call used is known.
    farewell: Option<Refusal>,
    /// Forwarded, and still to be counted: a copy, because the piece itself would keep a whole read buffer.
    uncounted: Vec<u8>,
    /// Bytes that came since others had their turn.
    of_turn: usize,
    /// The connection has been given the chance to flush what was forwarded.
    flushed: bool,
    /// Whether the caller waits for more, rather than the relay for the caller.
    awaited: bool,
    /// How long the caller may take nothing: as long as upstream may take to give more.
    patience: Duration,
    /// When the caller's connection last took something, or asked for it.
    asked: Instant,
    last_arrival: Instant,
    look_after: Pin<Box<Sleep>>,
    /// A larger lease that the stream waits for before it goes on.
    asking: Option<Asking>,
    /// Whether trailers reach the caller: on HTTP/2.
    trailers: bool,
}

impl Relay {
    pub(crate) fn new(
        call: Call,
        source: Option<Source>,
        meter: Meter,
        pool: Arc<Pool>,
        trailers: bool,
    ) -> Self {
        let patience = source.as_ref().map_or(Duration::MAX, |source| source.stall_timeout);
        Self {
            call,
            source,
            broken: None,
            pool,
            meter,
            ready: VecDeque::new(),
            reserved: None,
            ending: None,
            farewell: None,
            uncounted: Vec::new(),
            of_turn: 0,
            flushed: false,
            awaited: false,
            patience,
            asked: Instant::now(),
            last_arrival: Instant::now(),
            look_after: Box::pin(tokio::time::sleep(LOOK_AFTER)),
            asking: None,
            trailers,
        }
    }

    /// Puts in front what was read before the relay began.
    pub(crate) fn with_read(mut self, read: VecDeque<Bytes>, reserved: Reserved) -> Self {
        self.ready = read;
        self.reserved = Some(reserved);
        self
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        self.asked = Instant::now();
        if self.of_turn >= TURN {
            self.of_turn = 0;
            self.awaited = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = self.next_frame(cx);
        if frame.is_pending() {
            self.of_turn = 0;
        }
        self.awaited = frame.is_pending();
        frame
    }

    /// Whether the caller has taken nothing for as long as upstream may take to give more, or its tenant may not call any
    /// more. How long ago upstream gave something does not matter: a slow reader of a long answer may be far behind.
    fn has_stalled(&self, now: Instant) -> bool {
        let withdrawn = self.call.permission().withdrawn().is_some();
        let limit = if withdrawn { LOOK_AFTER } else { self.patience };
        !self.awaited && now.saturating_duration_since(self.asked) >= limit
    }

    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                if let Some(reserved) = &mut self.reserved {
                    reserved.shrink(bytes.len());
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.source.is_some()
                && let Some(asking) = &mut self.asking
            {
                // Nothing more is read meanwhile: what upstream has sent stays its own.
                ready!(Pin::new(asking).poll(cx));
                self.asking = None;
                self.count();
                self.hold_more(Instant::now());
                self.end_at_boundary();
                continue;
            }
            let Some(source) = &mut self.source else {
                ready!(self.call.poll_settled(cx));
                if let Some(refusal) = self.farewell.take() {
                    self.say_farewell(&refusal);
                    continue;
                }
                if self.broken.is_some() && !std::mem::replace(&mut self.flushed, true) {
                    // An error makes hyper drop what it has not flushed; Pending makes it flush first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return Poll::Ready(self.broken.take().map(Err).or_else(|| self.last_frame()));
            };
            match source.connection.poll_body(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.arrived(bytes);
                    // Upstream may be so fast that there is no idle moment.
                    if self.last_arrival >= self.look_after.deadline().into_std() {
                        self.look_after();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.broke("upstream_error", RelayError::Upstream(error));
                }
                Poll::Ready(None) => self.completed(),
                Poll::Pending => ready!(self.idle(cx)),
            }
        }
    }

    /// Takes a chunk: to be forwarded now and counted later.
    fn arrived(&mut self, bytes: Bytes) {
        self.last_arrival = Instant::now();
        self.of_turn += bytes.len();
        if !bytes.starts_with(b"data: [DONE]") {
            self.call.heard(self.last_arrival);
        }
        self.flushed = false;
        if self.uncounted.len() >= MOST_UNCOUNTED {
            self.count();
            self.check_budget();
        }
        match &mut self.meter {
            Meter::Stream { meter, hider, .. } => {
                self.call.first_chunk(self.last_arrival);
                let passing = if self.ending.is_some() {
                    let end = meter.push_to_boundary(&bytes).unwrap_or(bytes.len());
                    bytes.slice(..end)
                } else {
                    self.uncounted.extend_from_slice(&bytes);
                    bytes
                };
                match hider {
                    Some(hider) => hider.filter(passing, &mut self.ready),
                    None => self.ready.push_back(passing),
                }
            }
            Meter::Json(document) => {
                document.push(&bytes);
                self.ready.push_back(bytes);
            }
            Meter::Unbilled => self.ready.push_back(bytes),
        }
        self.end_at_boundary();
    }

    /// Nothing to forward at the moment. Ready when there is something again, or a lease to wait for, or the response has
    /// been ended.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.uncounted.len() >= COUNT_TOGETHER {
            if !self.flushed {
                // Pending makes hyper flush; woken at once, the counting is done behind the caller's back.
                self.flushed = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.call.gateway.metrics.chunk_delay.observe(self.last_arrival.elapsed().as_secs_f64());
            self.count();
            self.check_budget();
            self.end_at_boundary();
        }
        while self.source.is_some() && self.asking.is_none() {
            ready!(self.look_after.as_mut().poll(cx));
            self.look_after();
        }
        Poll::Ready(())
    }

    /// Ends what may not go on or has nothing to go on with, and comes back later.
    fn look_after(&mut self) {
        let now = Instant::now();
        self.look_after.as_mut().reset((now + LOOK_AFTER).into());
        self.count();
        self.check_budget();
        self.end_at_boundary();
        let Some(idle_timeout) = self.source.as_ref().map(|source| source.idle_timeout) else { return };
        let overdue = |ending: &Ending| now.saturating_duration_since(ending.since) >= PATIENCE;
        if let Some(reason) = self.ending.as_ref().filter(|ending| overdue(ending)).map(Ending::reason) {
            self.broke(reason, RelayError::Ended(reason));
        } else if self.ending.is_none()
            && let Some(refusal) = self.call.permission().withdrawn()
        {
            self.count();
            self.end(refusal, now);
            self.look_after.as_mut().reset((now + PATIENCE).into());
            self.end_at_boundary();
        } else if now.saturating_duration_since(self.last_arrival) >= idle_timeout {
            self.broke("upstream_timeout", RelayError::Idle(idle_timeout));
        }
    }

    /// Lets the response end: a plain stream at the end of an event, anything else at once.
    fn end(&mut self, refusal: Refusal, since: Instant) {
        if matches!(&self.meter, Meter::Stream { inflater: None, .. }) {
            self.ending = Some(Ending { refusal, since });
        } else {
            self.broke(refusal.reason(), RelayError::Ended(refusal.reason()));
        }
    }

    /// Counts what has been forwarded, and books the output among it.
    fn count(&mut self) {
        let Meter::Stream { meter, inflater, spent, .. } = &mut self.meter else { return };
        fault::point("meter");
        match inflater {
            Some(inflater) => inflater.push(&self.uncounted, |bytes| meter.push(bytes)),
            None => meter.push(&self.uncounted),
        }
        self.uncounted.clear();
        // Under a strict ceiling all that is held counts already: what passes need not be told apart from that before it
        // may be more.
        let held = self.call.admission.as_ref().map_or(Tokens::ZERO, Admission::output_allowed);
        if self.call.tenant.limits().ceiling == Ceiling::Soft || meter.output_bound() >= held {
            meter.count();
        }
        let counted = meter.output_counted();
        if counted > *spent
            && let Some(admission) = &mut self.call.admission
        {
            admission.spend(counted.saturating_sub(*spent), self.call.gateway.clock.now());
            *spent = counted;
        }
    }

    /// Lets the stream hold more if it is beyond what it holds, or end if it cannot. Everything forwarded must have been
    /// counted.
    fn check_budget(&mut self) {
        if self.ending.is_some() || self.asking.is_some() || !self.is_beyond_hold() {
            return;
        }
        self.asking = self.ask_for_more();
        if self.asking.is_none() {
            self.hold_more(self.last_arrival);
        }
    }

    /// Whether the stream has used all that it holds, and may be ended for it.
    fn is_beyond_hold(&self) -> bool {
        let (Meter::Stream { meter, .. }, Some(admission)) = (&self.meter, &self.call.admission) else {
            return false;
        };
        self.call.tenant.limits().ceiling == Ceiling::Strict
            && meter.output_counted() >= admission.output_allowed()
            && meter.usage().is_none()
    }

    /// The way to a larger lease, where the growth needs one.
    fn ask_for_more(&self) -> Option<Asking> {
        let prices = *self.call.admission.as_ref()?.prices();
        self.call.gateway.fleet.as_ref()?.cover_growth(&self.call.tenant, GROWTH, prices)
    }

    /// Holds more for the stream, or lets it end.
    fn hold_more(&mut self, since: Instant) {
        let now = self.call.gateway.clock.now();
        let Some(admission) = &mut self.call.admission else { return };
        if let Err(refused) = admission.grow(self.call.tenant.limits(), GROWTH, now) {
            self.end(Refusal::Limited(refused), since);
        }
    }

    /// Ends a stream that is to end, if what has passed are whole events and it is not at its own end.
    fn end_at_boundary(&mut self) {
        if let Meter::Stream { meter, .. } = &self.meter
            && meter.at_boundary()
            && meter.usage().is_none()
            && let Some(ending) = self.ending.take()
        {
            self.cut(ending.refusal);
        }
    }

    /// Ends the stream well formed, and gives up upstream's.
    fn cut(&mut self, refusal: Refusal) {
        self.source = None;
        self.call.ended_by(refusal.reason());
        self.call.gateway.metrics.stream_cut(&self.call.tenant.name, refusal.reason());
        // What ended it must hold after a crash, too, as far as that is possible without waiting.
        if let Some(store) = &self.call.gateway.store {
            store.hurry();
        }
        self.settle(End::Unfinished);
        self.farewell = Some(refusal);
    }

    /// The end of a stream that was cut, with what the call used.
    fn say_farewell(&mut self, refusal: &Refusal) {
        let Meter::Stream { api, meter, hider, .. } = &self.meter else { return };
        let message = refusal.to_string();
        let cut = Cut {
            reason: refusal.reason(),
            message: &message,
            kind: refusal.openai_type(),
            by_budget: matches!(refusal, Refusal::Limited(_)),
            // Without a hider the caller has asked for the usage chunk, or its API always has one.
            usage: hider.is_none().then(|| self.call.settled()),
        };
        self.ready.push_back(Bytes::from(cut::ending(*api, meter.identity(), &cut)));
    }

    /// Upstream's body has ended as it should.
    fn completed(&mut self) {
        self.count();
        if let Some(Source { connection, authority, .. }) = self.source.take() {
            self.pool.put(&authority, connection);
        }
        match &mut self.meter {
            Meter::Stream { hider: Some(hider), .. } => hider.finish(&mut self.ready),
            Meter::Stream { hider: None, .. } | Meter::Json(_) | Meter::Unbilled => {}
        }
        let end = self.ended();
        if end == End::Complete && !self.usage_is_known() {
            self.call.gateway.metrics.unreadable_usage.inc();
        }
        self.settle(end);
    }

    /// How an answer ended of which all has come.
    fn ended(&self) -> End {
        let Meter::Stream { meter, .. } = &self.meter else { return End::Complete };
        match meter.failed() {
            Some(Failure::Prompt) if meter.output_bound() == Tokens::ZERO => End::PromptRead,
            Some(Failure::Prompt | Failure::Other) => End::Failed,
            None if meter.finished() => End::Complete,
            // Upstream may have closed the connection before it sent all that it had written.
            None => End::Unfinished,
        }
    }

    /// The response ends before its end.
    fn broke(&mut self, reason: &'static str, error: RelayError) {
        self.source = None;
        self.broken = Some(error);
        self.flushed = false;
        self.count();
        self.call.ended_by(reason);
        if matches!(self.meter, Meter::Stream { .. }) {
            self.call.gateway.metrics.stream_cut(&self.call.tenant.name, reason);
        }
        self.settle(End::Unfinished);
    }

    fn settle(&mut self, end: End) {
        let (end, metered) = match &self.meter {
            Meter::Unbilled => (End::Unbilled, Metered::default()),
            Meter::Stream { meter, inflater, .. } => {
                let unread = inflater.as_ref().is_some_and(|inflater| inflater.is_unreadable());
                (end, metered(meter, unread))
            }
            Meter::Json(document) => (end, document.metered()),
        };
        self.call.settle(end, &metered);
    }

    fn usage_is_known(&self) -> bool {
        match &self.meter {
            Meter::Stream { meter, .. } => meter.usage().is_some(),
            Meter::Json(document) => document.metered().usage.is_some(),
            Meter::Unbilled => true,
        }
    }

    /// After the body: what the call used, where trailers reach the caller.
    fn last_frame(&mut self) -> Option<Result<Frame<Bytes>, RelayError>> {
        if !std::mem::take(&mut self.trailers) {
            return None;
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(TOKENS_CONSUMED, token_value(self.call.settled().total()));
        Some(Ok(Frame::trailers(trailers)))
    }
}

/// What was seen of a stream. Its text is tokenised only where upstream's own count has not come, or does not fit it.
fn metered(meter: &StreamMeter, unread: bool) -> Metered {
    let usage = meter.usage().copied();
    let seen = match &usage {
        Some(usage) if usage.accounts_for(meter.answer_bytes()) => Tokens::ZERO,
        Some(_) => meter.answer_total(),
        None => meter.output_total(),
    };
    Metered { usage, seen, unread: unread || !meter.is_counted_whole(), answered: true }
}

impl Ending {
    fn reason(&self) -> &'static str {
        self.refusal.reason()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // While a panic unwinds, a second one would end the process, and what could not be counted before cannot be now.
        // The call settles itself by what is known.
        if std::thread::panicking() {
            return;
        }
        // The caller has hung up. Dropping the source cancels upstream.
        if self.source.is_some() {
            self.count();
            let complete = matches!(&self.meter, Meter::Stream { meter, .. } if meter.finished());
            if !complete && !self.call.has_reason() {
                self.call.ended_by(CALLER_GONE);
            }
            self.settle(if complete { self.ended() } else { End::Unfinished });
        }
    }
}
