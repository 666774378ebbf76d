//! Reading a request's body, within its bounds: in bytes, between two pieces, and for all of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Listen;
use crate::reply::Refusal;

/// The whole body. One that arrives in one piece is not copied.
pub(super) async fn read(mut body: Incoming, headers: &HeaderMap, listen: &Listen) -> Result<Bytes, Refusal> {
    let most = listen.max_body_bytes;
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(Refusal::BodyTooLarge(most));
    }
    let started = Instant::now();
    let mut first = Bytes::new();
    let mut gathered = BytesMut::new();
    while !body.is_end_stream() {
        let latest = Instant::now().min(started + earned(first.len() + gathered.len(), listen));
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
        if first.len() + gathered.len() + data.len() > most {
            return Err(Refusal::BodyTooLarge(most));
        }
        if first.is_empty() && gathered.is_empty() {
            first = data;
            continue;
        }
        if gathered.is_empty() {
            gathered.reserve(announced.unwrap_or_default().min(most).max(first.len() + data.len()));
            gathered.extend_from_slice(&std::mem::take(&mut first));
        }
        gathered.extend_from_slice(&data);
    }
    Ok(if gathered.is_empty() { first } else { gathered.freeze() })
}

/// How long a body may have taken to come so far at the slowest, beside the time for its next piece: one that drips
/// would occupy its place for ever.
fn earned(bytes: usize, listen: &Listen) -> Duration {
    Duration::from_secs(bytes as u64) / listen.min_body_bytes_per_second.get()
}
