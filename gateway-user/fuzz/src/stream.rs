//! A stream: what is metered and what passes does not depend on the pieces that it arrives in, and nothing is left out of
//! it but usage chunks.

use std::collections::VecDeque;

use bytes::Bytes;
use gateway_user::api::Api;
use gateway_user::meter::hide::UsageHider;
use gateway_user::meter::stream::StreamMeter;
use gateway_user::model::Encoding;
use serde_json::Value;

pub(crate) fn run(data: &[u8]) {
    let Some(([how, plan @ ..], stream)) = crate::split::<5>(data) else { return };
    let api = if how & 1 == 0 { Api::ChatCompletions } else { Api::Responses };
    let whole = metered(api, [stream]);
    assert_eq!(whole, metered(api, crate::pieces(&plan, stream)), "in pieces of {plan:?}");
    assert_eq!(whole, metered_by_event(api, stream), "event by event");

    let passed = passed([stream]);
    assert_eq!(passed, self::passed(crate::pieces(&plan, stream)), "in pieces of {plan:?}");
    only_usage_is_left_out(stream, &passed);
}

/// All that a meter knows.
fn metered<'a>(api: Api, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut meter = StreamMeter::new(api, Encoding::O200k);
    pieces.into_iter().for_each(|piece| meter.push(piece));
    known(&meter)
}

fn metered_by_event(api: Api, stream: &[u8]) -> String {
    let mut meter = StreamMeter::new(api, Encoding::O200k);
    let mut rest = stream;
    while let Some(end) = meter.push_to_boundary(rest) {
        assert!(meter.at_boundary() && end > 0);
        rest = rest.get(end..).unwrap_or_default();
    }
    known(&meter)
}

fn known(meter: &StreamMeter) -> String {
    format!(
        "{:?} {:?} {} {} {} {:?}",
        meter.usage(),
        meter.output_total(),
        meter.finished(),
        meter.at_boundary(),
        meter.unreadable(),
        meter.identity()
    )
}

fn passed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut hider, mut out) = (UsageHider::default(), VecDeque::new());
    for piece in pieces {
        hider.filter(Bytes::copy_from_slice(piece), &mut out);
    }
    hider.finish(&mut out);
    Vec::from(out).concat()
}

/// Goes through the events of what came: each has passed, or is a usage chunk.
fn only_usage_is_left_out(stream: &[u8], mut passed: &[u8]) {
    let mut rest = stream;
    while !rest.is_empty() {
        let (event, after) = rest.split_at(event_end(rest));
        rest = after;
        match passed.strip_prefix(event) {
            Some(after) => passed = after,
            None => assert!(is_usage_chunk(event), "{:?} is missing", String::from_utf8_lossy(event)),
        }
    }
    assert!(passed.is_empty(), "{:?} was added", String::from_utf8_lossy(passed));
}

/// Where the first event ends: behind the empty line, or with the stream.
fn event_end(bytes: &[u8]) -> usize {
    let mut line = 0;
    while let Some(rest) = bytes.get(line..)
        && let Some(length) = memchr::memchr2(b'\n', b'\r', rest)
    {
        let end = line + length;
        let next = end + if bytes.get(end..).is_some_and(|end| end.starts_with(b"\r\n")) { 2 } else { 1 };
        if end == line {
            return next;
        }
        line = next;
    }
    bytes.len()
}

fn is_usage_chunk(event: &[u8]) -> bool {
    let mut lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let data = lines.find_map(|line| line.strip_prefix(b"data:"));
    // Not to be read as text, it may still be left out.
    let chunk = String::from_utf8_lossy(data.unwrap_or_default());
    let chunk: Value = serde_json::from_str(&chunk).unwrap_or_default();
    chunk["choices"].as_array().is_some_and(Vec::is_empty) && !chunk["usage"].is_null()
}
