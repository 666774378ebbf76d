//! The model at work: it makes an answer, in the time and with the end that it was told.

use bytes::Bytes;
use serde_json::Value;

use super::answer::{Event, Events, Heading};
use super::behaviour::{Behaviour, Fault};
use super::body::{Body, End, Half, Reset};
use super::call::Call;
use super::compress::compressed;
use super::ledger::Entry;
use super::refusal::{Refusal, server_error};
use super::route::Api;
use super::{chat, completions, embeddings, responses};

/// The answer as a stream.
pub(crate) fn events(call: &Call, heading: &Heading, fault: Option<Fault>) -> Events {
    let events = match call.api {
        Api::Chat => chat::events(call, heading),
        Api::Completions => completions::events(call, heading),
        Api::Responses => return responses::events(call, heading, fault),
        // Never streamed, see `Call::read`.
        Api::Embeddings => Events::new(std::iter::empty()),
    };
    match fault {
        Some(Fault::StreamError { after_chunks } | Fault::ResponseFailed { after_chunks }) => {
            events.failing(after_chunks, Event::unnamed(server_error()))
        }
        _ => events,
    }
}

/// Takes as long as the answer's stream would, and counts its tokens meanwhile.
pub(crate) async fn generate(call: &Call, behaviour: &Behaviour, entry: &Entry) {
    let each = call.reasoning + call.said;
    if behaviour.chunk_delay.is_zero() {
        entry.generated(each * call.candidates);
        return;
    }
    let step = behaviour.chunk_tokens.max(1);
    let mut done = 0;
    while done < each {
        tokio::time::sleep(behaviour.chunk_delay).await;
        let now = step.min(each - done);
        entry.generated(now * call.candidates);
        done += now;
    }
}

/// The body of an answer in one piece, or the part of it that the fault leaves.
///
/// # Errors
/// When the fault is a 500.
pub(crate) fn whole(
    call: &Call,
    heading: &Heading,
    behaviour: &Behaviour,
    mut entry: Entry,
    reset: &Reset,
) -> Result<Body, Refusal> {
    let bytes = Bytes::from(answer(call, heading).to_string());
    let bytes = if behaviour.gzip { compressed(&bytes) } else { bytes };
    let end = match behaviour.fault {
        Some(Fault::Reset { .. }) => End::Reset(reset.clone()),
        Some(Fault::Truncated { .. }) => End::Closed,
        Some(Fault::Stall { .. }) => End::Never,
        Some(Fault::StreamError { .. } | Fault::ResponseFailed { .. }) => {
            return Err(Refusal::broken(http::StatusCode::INTERNAL_SERVER_ERROR));
        }
        _ => {
            entry.finish();
            return Ok(Body::from(bytes));
        }
    };
    Ok(Body::Half(Box::new(Half {
        promised: bytes.len() as u64,
        bytes: bytes.slice(..bytes.len() / 2),
        end,
        flushed: false,
        _entry: entry,
    })))
}

/// The answer in one piece.
pub(crate) fn answer(call: &Call, heading: &Heading) -> Value {
    match call.api {
        Api::Chat => chat::whole(call, heading),
        Api::Completions => completions::whole(call, heading),
        Api::Embeddings => embeddings::whole(call, heading),
        Api::Responses => responses::whole(call, heading),
    }
}
