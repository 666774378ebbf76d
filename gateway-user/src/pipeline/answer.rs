//! The caller's answer: what comes back from upstream, or what the gateway says itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::body::TURN;
use super::wait;
use crate::api::Api;
use crate::billing::End;
use crate::buffers::Reserved;
use crate::call::Call;
use crate::limits::Grant;
use crate::meter::answer;
use crate::meter::hide::UsageHider;
use crate::meter::inflate::Inflater;
use crate::meter::stream::StreamMeter;
use crate::relay::{Delivery, Document, HeldAnswer, Meter, Relay, RelayError, Source, TOKENS_CONSUMED};
use crate::reply::{QUOTA_REASON, Refusal, token_value};
use crate::request::forward::strip_response;
use crate::session::{OpenCall, Session, WorkerState};
use crate::supervise::panics::Scope;
use crate::units::Tokens;
use crate::upstream::backend::Backend;

/// A JSON answer is held back until its usage is known, up to this size: a longer one is passed on as it comes, without
/// the exact count in its head.
const LONGEST_HELD: usize = 1024 * 1024;

/// `x-ratelimit-remaining`.
const CALLS_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// `x-tokens-remaining`.
const TOKENS_REMAINING: HeaderName = HeaderName::from_static("x-tokens-remaining");

/// The head of upstream's response, and what its body comes over.
pub(super) struct Received {
    pub(super) response: Response<()>,
    pub(super) source: Source,
    /// Whose response it is.
    pub(super) backend: Arc<Backend>,
}

/// What decides how a response is passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) api: Api,
    /// The caller asked for a stream.
    pub(super) streaming: bool,
    /// The usage chunk of a stream is not for the caller.
    pub(super) hide_usage: bool,
    /// The caller can be sent trailers.
    pub(super) trailers: bool,
    pub(super) grant: Grant,
}

/// A response's body, and the slot that its call occupies on the connection until it is gone.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    /// Nothing of an empty one.
    delivery: Option<Delivery>,
    _open: OpenCall,
}

impl ReplyBody {
    pub(super) const fn empty(open: OpenCall) -> Self {
        Self { delivery: None, _open: open }
    }

    pub(super) const fn new(delivery: Delivery, open: OpenCall) -> Self {
        Self { delivery: Some(delivery), _open: open }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let _call = Scope::Call.enter();
        self.delivery.as_ref().map_or(Poll::Ready(None), |delivery| delivery.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.delivery.as_ref().is_none_or(Delivery::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.delivery.as_ref().map_or_else(|| SizeHint::with_exact(0), Delivery::size_hint)
    }
}

/// Passes upstream's response on.
///
/// # Errors
/// When upstream breaks off before anything of its answer has been passed on.
pub(super) async fn relay(
    session: &Arc<Session>,
    mut call: Call,
    received: Received,
    manner: Manner,
    open: OpenCall,
) -> Result<Response<ReplyBody>, Refusal> {
    let Received { response, source, backend } = received;
    let (mut head, ()) = response.into_parts();
    add_headers(&mut head.headers, head.status, &manner.grant);
    let inflater = Inflater::of(head.headers.get(CONTENT_ENCODING));
    let relays = &session.worker.relays;
    let delivery = if is_event_stream(&head, manner.streaming) {
        call.keep_prompt().await;
        head.headers.insert(TOKENS_CONSUMED, token_value(call.prompt.likely()));
        // The gateway may leave a chunk out, or end the stream before upstream would.
        head.headers.remove(CONTENT_LENGTH);
        backend.saw_answer(head.status, &VecDeque::new());
        relays.share(stream(session, call, source, &manner, inflater), &open)
    } else {
        let mut reserved = session.gateway.buffers.reserve(&call.tenant.buffered);
        let document = Document::new(inflater);
        match hold(
            &mut call,
            source,
            head.status,
            Holding { document, reserved: &mut reserved, worker: &session.worker, api: manner.api },
        )
        .await?
        {
            Held::Whole(parts, source) => {
                backend.saw_answer(head.status, &parts);
                session.worker.pool.put(&source.authority, source.connection);
                head.headers.insert(TOKENS_CONSUMED, token_value(call.settled().total()));
                if let Some(left) =
                    call.tenant.account.tokens_left(call.tenant.limits(), call.gateway.clock.now())
                {
                    head.headers.insert(TOKENS_REMAINING, token_value(left));
                }
                let held = HeldAnswer::new(call, parts, reserved, session.idle_timeout);
                relays.deliver(held, manner.trailers, &open)
            }
            Held::TooLong(parts, source, meter) => {
                call.keep_prompt().await;
                backend.saw_answer(head.status, &parts);
                let pool = Arc::clone(&session.worker.pool);
                let relay = Relay::new(call, Some(source), meter, pool, manner.trailers);
                relays.share(relay.with_read(parts, reserved), &open)
            }
        }
    };
    Ok(Response::from_parts(head, ReplyBody::new(delivery, open)))
}

fn stream(
    session: &Arc<Session>,
    call: Call,
    source: Source,
    manner: &Manner,
    inflater: Option<Inflater>,
) -> Relay {
    // Nothing can be left out of compressed bytes.
    let hides = manner.hide_usage && inflater.is_none();
    let meter = Meter::Stream {
        api: manner.api,
        meter: Box::new(StreamMeter::new(manner.api, call.deployment.facts.encoding)),
        inflater: inflater.map(Box::new),
        hider: hides.then(|| Box::new(UsageHider::default())),
        spent: Tokens::ZERO,
    };
    Relay::new(call, Some(source), meter, Arc::clone(&session.worker.pool), manner.trailers)
}

/// A JSON answer as far as it was held back.
enum Held {
    /// All of it; the call is settled.
    Whole(VecDeque<Bytes>, Source),
    /// Its start; the rest is to be passed on as it comes.
    TooLong(VecDeque<Bytes>, Source, Meter),
}

/// What a JSON answer is held with.
struct Holding<'a> {
    document: Document,
    reserved: &'a mut Reserved,
    worker: &'a WorkerState,
    api: Api,
}

/// Holds a JSON answer until its usage is known, so that its head can say it. One that is too long, or for which there is no
/// memory, is passed on as it comes: upstream has charged it.
async fn hold(
    call: &mut Call,
    mut source: Source,
    status: StatusCode,
    holding: Holding<'_>,
) -> Result<Held, Refusal> {
    let Holding { mut document, reserved, worker, api } = holding;
    let mut parts = VecDeque::new();
    let (mut bytes_held, mut of_turn) = (0, 0);
    let refusal = loop {
        if of_turn >= TURN {
            of_turn = 0;
            worker.others_first().await;
        }
        let next = poll_fn(|cx| source.connection.poll_body(cx));
        match wait::for_upstream(&call.permission(), source.idle_timeout, next).await {
            Ok(Some(Ok(bytes))) => {
                document.push(&bytes);
                bytes_held += bytes.len();
                of_turn += bytes.len();
                let has_room = reserved.grow(bytes.len()).is_ok();
                parts.push_back(bytes);
                if bytes_held > LONGEST_HELD || !has_room {
                    let meter =
                        if status.is_success() { Meter::Json(Box::new(document)) } else { Meter::Unbilled };
                    return Ok(Held::TooLong(parts, source, meter));
                }
            }
            Ok(None) => break None,
            Ok(Some(Err(error))) => {
                tracing::warn!(request_id = %call.request_id, error = %error, "upstream broke off");
                break Some(Refusal::UpstreamError);
            }
            Err(refusal) => break Some(refusal),
        }
    };
    let mut metered = document.metered();
    if let Some(usage) = metered.usage
        && status.is_success()
        && !document.is_compressed()
        && api.writes_text()
        && !answer::accounts_for(&usage, bytes_held)
    {
        // It may be a megabyte: no work for a worker.
        let (parts, encoding) = (parts.clone(), call.deployment.facts.encoding);
        let counting = call
            .gateway
            .compute
            .run(&call.tenant.name, move |_stop| answer::unaccounted(&parts, encoding, &usage));
        // It can only fail by a panic, and then upstream's count stands.
        metered.seen = counting.await.unwrap_or_default();
    }
    let end = match &refusal {
        _ if !status.is_success() => error(status, &parts),
        Some(_) => End::Unfinished,
        None => End::Complete,
    };
    if end == End::Complete && metered.usage.is_none() {
        call.gateway.metrics.unreadable_usage.inc();
    }
    call.settle(end, &metered);
    match refusal {
        Some(refusal) => {
            call.refused(&refusal);
            Err(refusal)
        }
        None => {
            // The head is to say what was booked.
            call.settlement().await;
            Ok(Held::Whole(parts, source))
        }
    }
}

/// What an error of upstream's means for the bill. Azure bills what it has worked on (Azure, "Plan to manage costs": "HTTP Error
/// response code and billing status"): a prompt that its content filter has read, or that was too long, and what was
/// written until the time was over.
fn error(status: StatusCode, parts: &VecDeque<Bytes>) -> End {
    match status {
        StatusCode::REQUEST_TIMEOUT => End::Unfinished,
        StatusCode::BAD_REQUEST => {
            // In one piece, because a code may be cut anywhere.
            let body = parts.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat();
            let says = |code: &str| memchr::memmem::find(&body, code.as_bytes()).is_some();
            if says("\"content_filter\"") || says("\"context_length_exceeded\"") {
                End::PromptRead
            } else {
                End::Unbilled
            }
        }
        _ => End::Unbilled,
    }
}

/// Makes of upstream's headers the caller's: without those of its connection, and with the gateway's.
fn add_headers(headers: &mut HeaderMap, status: StatusCode, grant: &Grant) {
    strip_response(headers);
    headers.reserve(4);
    if let Some(calls) = grant.calls_left {
        headers.insert(CALLS_REMAINING, HeaderValue::from(calls));
    }
    if let Some(tokens) = grant.tokens_left {
        headers.insert(TOKENS_REMAINING, token_value(tokens));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(QUOTA_REASON, HeaderValue::from_static("upstream"));
    }
}

/// Whether an answer is to be passed on as it comes. Azure and API Management both send streams without their content type,
/// or under another, so that the request counts too: what was asked for as a stream and is no JSON is one.
fn is_event_stream(head: &Parts, asked: bool) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is = |expected: &[u8]| {
        content_type.get(..expected.len()).is_some_and(|start| start.eq_ignore_ascii_case(expected))
    };
    head.status.is_success() && (is(b"text/event-stream") || (asked && !is(b"application/json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_was_filtered_is_paid_for_however_its_error_is_cut() {
        let body = br#"{"error":{"code":"content_filter"}}"#;
        for cut in 0..body.len() {
            let parts = [&body[..cut], &body[cut..]].map(Bytes::from_static).into();
            assert_eq!(error(StatusCode::BAD_REQUEST, &parts), End::PromptRead, "cut at {cut}");
        }
        let other = [Bytes::from_static(br#"{"error":{"code":"invalid_request"}}"#)].into();
        assert_eq!(error(StatusCode::BAD_REQUEST, &other), End::Unbilled);
    }
}
