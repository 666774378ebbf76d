//! Leaves out of a stream the usage chunk that the gateway asked for and the caller did not.
//!
//! Whole events pass as the bytes that came. The start of an event whose end has not come yet passes at once where it
//! cannot be the usage chunk any more, and waits for the rest where it can: a few hundred bytes, once a stream.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// No usage chunk is as long: an event that outgrows this passes.
const LONGEST_USAGE_CHUNK: usize = 16 * 1024;

/// The state of one stream.
#[derive(Debug, Default)]
pub struct UsageHider {
    /// The start of an event that may be the usage chunk.
    waiting: BytesMut,
    /// Inside an event whose start has passed already.
    passing: bool,
    /// Where what has passed of it ends.
    passed_to: PassedTo,
}

/// How far a passing event has come towards the empty line that ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PassedTo {
    /// Inside a line.
    #[default]
    Line,
    /// Behind a line.
    LineEnd,
    /// Behind a line and a carriage return, which is the first half of an empty line's end.
    LineEndCr,
}

impl UsageHider {
    /// Takes the next bytes, and puts those that pass into `out`.
    pub fn filter(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        let bytes = if self.waiting.is_empty() {
            bytes
        } else {
            self.waiting.extend_from_slice(&bytes);
            self.waiting.split().freeze()
        };
        // What passes is gathered as one range for as long as nothing is left out.
        let mut passed_from = 0;
        let mut at = 0;
        if self.passing {
            match self.rest_of_event(&bytes) {
                Some(end) => {
                    self.passing = false;
                    at = end;
                }
                None => {
                    self.passed_to = self.passed_to.with(&bytes);
                    out.push_back(bytes);
                    return;
                }
            }
        }
        while let Some(end) = event_end(&bytes, at) {
            if is_usage_chunk(&bytes[at..end]) {
                push(out, &bytes, passed_from, at);
                passed_from = end;
            }
            at = end;
        }
        let start = &bytes[at..];
        if start.is_empty() || may_be_usage_chunk(start) {
            push(out, &bytes, passed_from, at);
            self.waiting.extend_from_slice(start);
        } else {
            self.passing = true;
            self.passed_to = PassedTo::Line.with(start);
            push(out, &bytes, passed_from, bytes.len());
        }
    }

    /// What still waits when the stream ends: an event without an end.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        if !self.waiting.is_empty() {
            out.push_back(self.waiting.split().freeze());
        }
    }

    /// Where the event ends that has been passing.
    fn rest_of_event(&self, bytes: &[u8]) -> Option<usize> {
        match self.passed_to {
            PassedTo::LineEnd | PassedTo::LineEndCr if bytes.starts_with(b"\n") => Some(1),
            PassedTo::LineEnd if bytes.starts_with(b"\r\n") => Some(2),
            PassedTo::Line | PassedTo::LineEnd | PassedTo::LineEndCr => event_end(bytes, 0),
        }
    }
}

impl PassedTo {
    /// Where the event ends with `bytes` behind it, which do not end it.
    fn with(self, bytes: &[u8]) -> Self {
        match bytes {
            [] => self,
            [.., b'\n'] => Self::LineEnd,
            [.., b'\n', b'\r'] => Self::LineEndCr,
            [b'\r'] if self == Self::LineEnd => Self::LineEndCr,
            [..] => Self::Line,
        }
    }
}

fn push(out: &mut VecDeque<Bytes>, bytes: &Bytes, from: usize, to: usize) {
    if from < to {
        out.push_back(bytes.slice(from..to));
    }
}

/// Where the event ends that starts at `from`: behind the empty line that ends it.
fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(line) = memchr(b'\n', &bytes[at..]) {
        at += line + 1;
        if bytes.get(at) == Some(&b'\n') {
            return Some(at + 1);
        }
        if bytes.get(at) == Some(&b'\r') && bytes.get(at + 1) == Some(&b'\n') {
            return Some(at + 2);
        }
    }
    None
}

/// Whether an event is the chunk that carries usage and nothing else: empty `choices` and a `usage`.
fn is_usage_chunk(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Option<Vec<IgnoredAny>>,
        usage: Option<IgnoredAny>,
    }
    // Every other chunk of such a stream says so in these bytes, which cannot stand inside a JSON string.
    if memmem::find(event, b"\"usage\"").is_none() || memmem::find(event, b"\"usage\":null").is_some() {
        return false;
    }
    let mut lines = event.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"data:"));
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let chunk: Option<Chunk> = serde_json::from_slice(line.get(5..).unwrap_or_default()).ok();
    chunk
        .is_some_and(|chunk| chunk.usage.is_some() && chunk.choices.is_some_and(|choices| choices.is_empty()))
}

/// Whether the start of an event may turn out to be the usage chunk.
fn may_be_usage_chunk(start: &[u8]) -> bool {
    start.len() <= LONGEST_USAGE_CHUNK && memmem::find(start, b"\"choices\":[{").is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEFORE: &str = concat!(
        "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
        ": comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\": {\"}}],\"usage\":null}\n\n",
    );
    const USAGE: &str = "data: {\"id\":\"1\",\"choices\": [ ],\"usage\": {\"prompt_tokens\":9}}\n\n";
    const AFTER: &str = "data: [DONE]\n\n";

    fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
        let mut hider = UsageHider::default();
        let mut out = VecDeque::new();
        for piece in pieces {
            hider.filter(Bytes::copy_from_slice(piece), &mut out);
        }
        hider.finish(&mut out);
        Vec::from(out).concat()
    }

    #[test]
    fn only_the_usage_chunk_is_left_out() {
        let stream = [BEFORE, USAGE, AFTER].concat();
        assert_eq!(filtered(&[stream.as_bytes()]), [BEFORE, AFTER].concat().into_bytes());
    }

    #[test]
    fn a_whole_event_passes_as_the_bytes_that_came() {
        let mut out = VecDeque::new();
        let bytes = Bytes::from_static(BEFORE.as_bytes());
        UsageHider::default().filter(bytes.clone(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn the_start_of_an_event_passes_as_soon_as_it_shows_what_it_is() {
        let mut hider = UsageHider::default();
        let mut out = VecDeque::new();
        hider.filter(Bytes::from_static(b"data: {\"choi"), &mut out);
        assert!(out.is_empty());
        hider.filter(Bytes::from_static(b"ces\":[{\"delta\":"), &mut out);
        assert_eq!(out.pop_front().unwrap(), "data: {\"choices\":[{\"delta\":");
        hider.filter(Bytes::from_static(b"{}}]}\n"), &mut out);
        assert_eq!(out.pop_front().unwrap(), "{}}]}\n");
        hider.filter(Bytes::from_static(b"\n"), &mut out);
        assert_eq!(out.pop_front().unwrap(), "\n");
        hider.filter(Bytes::from(USAGE), &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_stream_that_breaks_off_loses_nothing() {
        assert_eq!(filtered(&[b"data: {\"choices\":[],\"us"]), b"data: {\"choices\":[],\"us");
    }

    proptest! {
        #[test]
        fn any_split_in_any_framing_leaves_out_the_same(
            cuts in prop::collection::vec(0_usize..400, 0..8), crlf in any::<bool>(),
        ) {
            let framed = |text: &str| if crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
            let stream = framed(&[BEFORE, USAGE, AFTER].concat());
            let bytes: Vec<_> = stream.as_bytes().chunks(1).collect();
            prop_assert_eq!(filtered(&bytes), framed(&[BEFORE, AFTER].concat()).into_bytes());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut done = 0;
            for cut in cuts {
                pieces.push(&stream.as_bytes()[done..cut]);
                done = cut;
            }
            pieces.push(&stream.as_bytes()[done..]);
            prop_assert_eq!(filtered(&pieces), framed(&[BEFORE, AFTER].concat()).into_bytes());
        }

        #[test]
        fn what_holds_no_usage_chunk_is_unchanged(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"da:{}\"[]\r\n ".to_vec()), 0..20), 0..20),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(filtered(&pieces), pieces.concat());
        }
    }
}
