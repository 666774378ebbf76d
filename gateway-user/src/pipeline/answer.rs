//! The caller's answer: what comes back from upstream, or what the gateway says itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::wait;
use crate::api::Api;
use crate::call::{Call, Settlement};
use crate::limits::Grant;
use crate::meter::hide::UsageHider;
use crate::meter::json::UsageScanner;
use crate::meter::stream::StreamMeter;
use crate::relay::{Meter, Relay, RelayError, SharedRelay, Source, TOKENS_CONSUMED};
use crate::reply::{QUOTA_REASON, Refusal, token_value};
use crate::request::forward::strip_response;
use crate::session::{OpenCall, Session};
use crate::units::Tokens;

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
}

/// What decides how a response is passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) api: Api,
    /// The usage chunk of a stream is not for the caller.
    pub(super) hide_usage: bool,
    /// The caller can be sent trailers.
    pub(super) trailers: bool,
    pub(super) grant: Grant,
}

/// A response's body, and the slot that its call occupies on the connection until it is gone.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    content: Content,
    _open: OpenCall,
}

#[derive(Debug)]
enum Content {
    /// All of it.
    Whole(VecDeque<Bytes>),
    /// As it comes.
    Relay(SharedRelay),
}

impl ReplyBody {
    pub(crate) fn full(bytes: Bytes, open: OpenCall) -> Self {
        Self { content: Content::Whole(VecDeque::from([bytes])), _open: open }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match &mut self.content {
            Content::Whole(parts) => Poll::Ready(parts.pop_front().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(parts) => parts.is_empty(),
            Content::Relay(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(parts) => {
                SizeHint::with_exact(parts.iter().map(|part| part.remaining() as u64).sum())
            }
            Content::Relay(_) => SizeHint::default(),
        }
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
    let Received { response, source } = received;
    let (mut head, ()) = response.into_parts();
    add_headers(&mut head.headers, head.status, &manner.grant);
    let content = if is_event_stream(&head) {
        head.headers.insert(TOKENS_CONSUMED, token_value(call.prompt));
        // The gateway may leave a chunk out, or end the stream before upstream would.
        head.headers.remove(CONTENT_LENGTH);
        Content::Relay(session.worker.relays.share(stream(session, call, source, &manner)))
    } else {
        match hold(&mut call, source, head.status).await? {
            Held::Whole(parts, source) => {
                session.worker.pool.put(&source.authority, source.connection);
                head.headers.insert(TOKENS_CONSUMED, token_value(call.settled().total()));
                if let Some(left) =
                    call.tenant.account.tokens_left(call.tenant.limits(), call.gateway.clock.now())
                {
                    head.headers.insert(TOKENS_REMAINING, token_value(left));
                }
                Content::Whole(parts)
            }
            Held::TooLong(parts, source, meter) => {
                let pool = Arc::clone(&session.worker.pool);
                let relay = Relay::new(call, Some(source), meter, pool, manner.trailers);
                Content::Relay(session.worker.relays.share(relay.with_read(parts)))
            }
        }
    };
    Ok(Response::from_parts(head, ReplyBody { content, _open: open }))
}

fn stream(session: &Arc<Session>, call: Call, source: Source, manner: &Manner) -> Relay {
    let meter = Meter::Stream {
        api: manner.api,
        meter: Box::new(StreamMeter::new(manner.api, call.deployment.encoding)),
        hider: manner.hide_usage.then(|| Box::new(UsageHider::default())),
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

/// Holds a JSON answer until its usage is known, so that its head can say it.
async fn hold(call: &mut Call, mut source: Source, status: StatusCode) -> Result<Held, Refusal> {
    let billed = status.is_success();
    let mut scanner = UsageScanner::new();
    let mut parts = VecDeque::new();
    let mut bytes_held = 0;
    loop {
        let next = poll_fn(|cx| source.connection.poll_body(cx));
        let refusal = match wait::for_upstream(&call.tenant, call.slot, source.idle_timeout, next).await {
            Ok(Some(Ok(bytes))) => {
                scanner.push(&bytes);
                bytes_held += bytes.len();
                parts.push_back(bytes);
                if bytes_held > LONGEST_HELD {
                    let meter = if billed { Meter::Json(Box::new(scanner)) } else { Meter::Unbilled };
                    return Ok(Held::TooLong(parts, source, meter));
                }
                continue;
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::warn!(request_id = %call.request_id, error = %error, "upstream broke off");
                Refusal::UpstreamError
            }
            Err(refusal) => refusal,
        };
        call.settle(match scanner.usage() {
            _ if !billed => error(status, &parts),
            Some(usage) => Settlement::Reported(usage),
            None => Settlement::HoldStands,
        });
        call.refused(&refusal);
        return Err(refusal);
    }
    call.settle(match scanner.usage() {
        _ if !billed => error(status, &parts),
        Some(usage) => Settlement::Reported(usage),
        None => {
            call.gateway.metrics.unreadable_usage.inc();
            Settlement::HoldStands
        }
    });
    Ok(Held::Whole(parts, source))
}

/// What an error of upstream's has used. Azure bills what it has worked on (Azure, "Plan to manage costs": "HTTP Error
/// response code and billing status"): a prompt that its content filter has read, or that was too long, and what was
/// written until the time was over.
fn error(status: StatusCode, parts: &VecDeque<Bytes>) -> Settlement {
    match status {
        StatusCode::REQUEST_TIMEOUT => Settlement::HoldStands,
        StatusCode::BAD_REQUEST => {
            // In one piece, because a code may be cut anywhere.
            let body = parts.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat();
            let says = |code: &str| memchr::memmem::find(&body, code.as_bytes()).is_some();
            if says("\"content_filter\"") || says("\"context_length_exceeded\"") {
                Settlement::Prompt
            } else {
                Settlement::Nothing
            }
        }
        _ => Settlement::Nothing,
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

fn is_event_stream(head: &Parts) -> bool {
    let plain = !head.headers.contains_key(CONTENT_ENCODING);
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let expected = b"text/event-stream";
    plain
        && head.status.is_success()
        && content_type.get(..expected.len()).is_some_and(|start| start.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_was_filtered_is_paid_for_however_its_error_is_cut() {
        let body = br#"{"error":{"code":"content_filter"}}"#;
        for cut in 0..body.len() {
            let parts = [&body[..cut], &body[cut..]].map(Bytes::from_static).into();
            assert!(matches!(error(StatusCode::BAD_REQUEST, &parts), Settlement::Prompt), "cut at {cut}");
        }
        let other = [Bytes::from_static(br#"{"error":{"code":"invalid_request"}}"#)].into();
        assert!(matches!(error(StatusCode::BAD_REQUEST, &other), Settlement::Nothing));
    }
}
