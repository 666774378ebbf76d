//! Leaves out of a stream the usage chunk that the gateway asked for and the caller did not.
//!
//! Whole events pass as the bytes that came. The start of an event whose end has not come yet passes at once where it
//! cannot be the usage chunk any more, and waits for the rest where it can: a few hundred bytes, once a stream.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::framing::Framing;

/// No usage chunk is as long: an event that outgrows this passes.
const LONGEST_USAGE_CHUNK: usize = 16 * 1024;
/// What every chunk has that brings a choice. To prepare the search for it costs more than the search.
static CHOICE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"choices\":[{"));

/// The state of one stream.
#[derive(Debug, Default)]
pub struct UsageHider {
    framing: Framing,
    /// The start of an event that may be the usage chunk.
    waiting: BytesMut,
    /// Inside an event whose start has passed already.
    passing: bool,
    /// The last event was left out, so that a line feed that still belongs to it is, too.
    hidden: bool,
}

impl UsageHider {
    /// Takes the next bytes, and puts those that pass into `out`.
    pub fn filter(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        // Where the event under way starts, and where new bytes do.
        let (mut event, mut at) = (0, self.waiting.len());
        let bytes = if self.waiting.is_empty() {
            bytes
        } else {
            self.waiting.extend_from_slice(&bytes);
            self.waiting.split().freeze()
        };
        // What passes is gathered as one range for as long as nothing is left out.
        let mut passed_from = 0;
        if at == 0 && !self.passing {
            event = bytes.len() - self.framing.without_line_feed(&bytes).len();
            at = event;
            if self.hidden {
                passed_from = event;
            }
        }
        while let Some(length) = self.framing.next_event(&bytes[at..]) {
            at += length;
            self.hidden = !std::mem::take(&mut self.passing) && is_usage_chunk(&bytes[event..at]);
            if self.hidden {
                push(out, &bytes, passed_from, event);
                passed_from = at;
            }
            event = at;
        }
        let start = &bytes[event..];
        self.passing |= !may_be_usage_chunk(start);
        if self.passing {
            push(out, &bytes, passed_from, bytes.len());
        } else {
            push(out, &bytes, passed_from, event);
            self.waiting.extend_from_slice(start);
        }
    }

    /// What still waits when the stream ends: an event without an end.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        if !self.waiting.is_empty() {
            out.push_back(self.waiting.split().freeze());
        }
    }
}

fn push(out: &mut VecDeque<Bytes>, bytes: &Bytes, from: usize, to: usize) {
    if from < to {
        out.push_back(bytes.slice(from..to));
    }
}

/// Whether an event is the chunk that carries usage and nothing else: empty `choices` and a `usage`.
fn is_usage_chunk(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Option<Vec<IgnoredAny>>,
        usage: Option<IgnoredAny>,
    }
    // What would pass if it came in pieces passes if it comes whole. Every other chunk of such a stream says so in these
    // bytes, which cannot stand inside a JSON string.
    if !may_be_usage_chunk(event)
        || memmem::find(event, b"\"usage\"").is_none()
        || memmem::find(event, b"\"usage\":null").is_some()
    {
        return false;
    }
    let mut lines =
        event.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| line.starts_with(b"data:"));
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let chunk: Option<Chunk> = serde_json::from_slice(line.get(5..).unwrap_or_default()).ok();
    chunk
        .is_some_and(|chunk| chunk.usage.is_some() && chunk.choices.is_some_and(|choices| choices.is_empty()))
}

/// Whether the start of an event may turn out to be the usage chunk.
fn may_be_usage_chunk(start: &[u8]) -> bool {
    start.len() <= LONGEST_USAGE_CHUNK && CHOICE.find(start).is_none()
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
    fn what_may_not_wait_is_not_left_out_either() {
        let nested = r#"data: {"x":{"choices":[{}]},"choices":[],"usage":{}}"#.to_owned() + "\n\n";
        let padding = " ".repeat(LONGEST_USAGE_CHUNK);
        let long = format!("data: {{\"choices\":[],{padding}\"usage\":{{}}}}\n\n");
        for event in [nested, long] {
            let (first, second) = event.as_bytes().split_at(event.len() - 3);
            assert_eq!(filtered(&[event.as_bytes()]), event.as_bytes());
            assert_eq!(filtered(&[first, second]), event.as_bytes());
        }
    }

    #[test]
    fn a_stream_that_breaks_off_loses_nothing() {
        assert_eq!(filtered(&[b"data: {\"choices\":[],\"us"]), b"data: {\"choices\":[],\"us");
    }

    #[test]
    fn an_event_that_ends_with_a_carriage_return_is_at_its_end() {
        let framed = |text: &str| text.replace('\n', "\r").into_bytes();
        let mut hider = UsageHider::default();
        let mut out = VecDeque::new();
        let filters = "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n";
        hider.filter(Bytes::from(framed(filters)), &mut out);
        assert_eq!(out.pop_front().unwrap(), framed(filters), "no byte of the next event is waited for");
        hider.filter(Bytes::from(framed(USAGE)), &mut out);
        hider.filter(Bytes::from_static(b"\ndata: [DONE]\r\r"), &mut out);
        assert_eq!(
            out.pop_front().unwrap(),
            "data: [DONE]\r\r",
            "the line feed belongs to what was left out"
        );
        hider.filter(Bytes::from_static(b"\n"), &mut out);
        assert_eq!(out.pop_front().unwrap(), "\n", "and this one to what was not");
    }

    proptest! {
        #[test]
        fn any_split_in_any_framing_leaves_out_the_same(
            cuts in prop::collection::vec(0_usize..400, 0..8), line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let framed = |text: &str| text.replace('\n', line_end);
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
