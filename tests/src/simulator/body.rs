//! A response body that keeps the pace it was told, in the pieces it was told, and breaks where it was told.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::answer::{Event, Events, unix_time};
use super::behaviour::{Behaviour, Fault, Framing};
use super::compress::Compressor;
use super::filter::Filter;
use super::ledger::Entry;

/// Why a response ends before its end: that is what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks here, as it was told to")]
pub(crate) struct Broken;

/// Makes a connection end in a TCP reset once it is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reset(Arc<AtomicBool>);

/// A response body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Bytes that leave in one piece.
    Whole(Option<Bytes>),
    /// Bytes that are promised but not all sent.
    Half(Box<Half>),
    /// A stream of events.
    Stream(Box<Stream>),
}

/// The first half of an answer, and what happens then.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) promised: u64,
    pub(crate) bytes: Bytes,
    pub(crate) end: End,
    /// Whether the bytes had their chance to leave.
    pub(crate) flushed: bool,
    /// Held until the body is dropped, which is when the call was abandoned.
    pub(crate) _entry: Entry,
}

/// How a body ends that does not end in order.
#[derive(Debug)]
pub(crate) enum End {
    Reset(Reset),
    Closed,
    Never,
}

/// The events of an answer on their way.
#[derive(Debug)]
pub(crate) struct Stream {
    events: Events,
    entry: Entry,
    framing: Framing,
    done_blank: bool,
    stamp: bool,
    filter: Option<Filter>,
    compressor: Option<Compressor>,
    split: usize,
    fault: Option<Fault>,
    reset: Reset,
    delay: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    next: Option<Event>,
    /// Of the event that is being sent.
    rest: Bytes,
    /// Events with tokens that were sent.
    chunks: u64,
    /// What was given to the connection is flushed before anything else happens.
    flush: bool,
    ended: bool,
}

impl Reset {
    pub(crate) fn demand(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_demanded(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl End {
    fn poll(&self) -> Poll<Broken> {
        match self {
            Self::Reset(reset) => {
                reset.demand();
                Poll::Ready(Broken)
            }
            Self::Closed => Poll::Ready(Broken),
            // Never woken: only the client's leaving ends it.
            Self::Never => Poll::Pending,
        }
    }
}

impl Stream {
    pub(crate) fn new(events: Events, entry: Entry, behaviour: &Behaviour, reset: Reset) -> Self {
        let mut stream = Self {
            events,
            entry,
            framing: behaviour.framing,
            done_blank: behaviour.done_blank,
            stamp: behaviour.stamp,
            filter: behaviour.flush_tokens.map(Filter::new),
            compressor: behaviour.gzip.then(Compressor::new),
            split: behaviour.split_bytes.filter(|&bytes| bytes > 0).unwrap_or(usize::MAX),
            fault: behaviour.fault,
            reset,
            delay: behaviour.chunk_delay,
            timer: None,
            next: None,
            rest: Bytes::new(),
            chunks: 0,
            flush: false,
            ended: false,
        };
        if behaviour.comment {
            let comment = format!(": hello{0}{0}", behaviour.framing.line_end());
            stream.rest = stream.coded(comment.into());
        }
        stream
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if std::mem::take(&mut self.flush) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.split.min(self.rest.len()));
                self.flush = self.split != usize::MAX || self.fault.is_some();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(broken) = ready!(self.poll_fault()) {
                return Poll::Ready(Some(Err(broken)));
            }
            ready!(self.poll_event(context));
            if self.ended {
                self.entry.finish();
                return Poll::Ready(None);
            }
        }
    }

    /// The fault, when its time has come.
    fn poll_fault(&self) -> Poll<Option<Broken>> {
        let end = match self.fault {
            Some(Fault::Reset { after_chunks }) if after_chunks <= self.chunks => {
                End::Reset(self.reset.clone())
            }
            Some(Fault::Truncated { after_chunks }) if after_chunks <= self.chunks => End::Closed,
            Some(Fault::Stall { after_chunks }) if after_chunks <= self.chunks => End::Never,
            _ => return Poll::Ready(None),
        };
        end.poll().map(Some)
    }

    /// Makes the next event ready to be sent, when its time has come.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.next.is_none() {
            self.next = self.events.next();
            let tokens = self.next.as_ref().is_some_and(|event| event.tokens > 0);
            if tokens && !self.delay.is_zero() {
                let due = Instant::now() + self.delay;
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(due),
                    None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
                }
            }
        }
        let Some(event) = &self.next else {
            self.rest = self.last();
            self.ended = self.rest.is_empty();
            return Poll::Ready(());
        };
        if event.tokens > 0
            && !self.delay.is_zero()
            && let Some(timer) = &mut self.timer
        {
            ready!(timer.as_mut().poll(context));
        }
        let Some(event) = self.next.take() else { return Poll::Ready(()) };
        self.entry.generated(event.tokens);
        if event.data.is_empty() {
            return Poll::Ready(());
        }
        if event.tokens > 0 {
            self.chunks += 1;
        }
        self.rest = self.written(event);
        Poll::Ready(())
    }

    /// What leaves now that an event was written.
    fn written(&mut self, event: Event) -> Bytes {
        let tokens = event.tokens;
        let mut event = if self.stamp && tokens > 0 {
            event.with_number("sent_unix_ns", unix_time().as_nanos())
        } else {
            event
        };
        if self.done_blank && event.data == "[DONE]" {
            event.data.push(' ');
        }
        let bytes = framed(&event, self.framing);
        let bytes = match &mut self.filter {
            Some(filter) => filter.passed(&bytes, tokens),
            None => bytes,
        };
        self.coded(bytes)
    }

    /// What leaves once there are no more events; empty when all of it left.
    fn last(&mut self) -> Bytes {
        let held = self.filter.take().map(|mut filter| filter.rest()).unwrap_or_default();
        let held = self.coded(held);
        let end = self.compressor.take().map(Compressor::end).unwrap_or_default();
        if end.is_empty() { held } else { [held, end].concat().into() }
    }

    fn coded(&mut self, bytes: Bytes) -> Bytes {
        match &mut self.compressor {
            Some(compressor) if !bytes.is_empty() => compressor.part(&bytes),
            _ => bytes,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Half(half) => {
                if half.bytes.is_empty() {
                    if !std::mem::replace(&mut half.flushed, true) {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    return half.end.poll().map(|broken| Some(Err(broken)));
                }
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut half.bytes)))))
            }
            Self::Stream(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Half(_) => false,
            Self::Stream(stream) => stream.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Half(half) => SizeHint::with_exact(half.promised),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

fn framed(event: &Event, framing: Framing) -> Bytes {
    let end = framing.line_end();
    Bytes::from(match &event.name {
        Some(name) => format!("event: {name}{end}data: {}{end}{end}", event.data),
        None => format!("data: {}{end}{end}", event.data),
    })
}
