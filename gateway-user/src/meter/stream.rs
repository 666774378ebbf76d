//! A stream's usage: the usage event when it comes, and until then a count of the text that has passed.
//!
//! Events are read line by line (the Server-Sent Events format, WHATWG HTML 9.2), whatever pieces they arrive in. A
//! line is held only up to a bound: a longer one, as the event that ends a response and repeats it whole, is scanned
//! for its usage as it passes.

mod wire;

use memchr::{memchr2, memmem};

use super::framing::{Framing, Line};
use super::json::UsageScanner;
use super::usage::Usage;
use crate::api::Api;
use crate::tokens::{Encoding, OutputCounter};
use crate::units::Tokens;
use wire::{Chunk, Delta, ResponseEvent, Text};

/// The longest line that is held to be parsed as a whole.
const LONGEST_LINE: usize = 32 * 1024;
/// In how many bytes of its data an event of the Responses API says what it is.
const TYPE_WITHIN: usize = 256;
/// Speech is spoken at twenty tokens a second (OpenAI, "Realtime costs") and streamed as 24,000 samples of two bytes each.
const SPEECH_A_TOKEN: usize = 48_000 / 20 / 3 * 4;
/// The longest `id` or `model` that is kept of a stream.
const LONGEST_NAME: usize = 256;

/// Reads a stream as it passes.
#[derive(Debug)]
pub struct StreamMeter {
    api: Api,
    line: Vec<u8>,
    /// Where the line under way outgrew its bound.
    overlong: Option<Overlong>,
    /// A line that may have been part of the answer was too long to be counted.
    passed_over: bool,
    framing: Framing,
    output: OutputCounter,
    /// Characters of speech that have passed, in base64.
    speech: usize,
    usage: Option<Usage>,
    finished: bool,
    identity: StreamIdentity,
    unreadable: u64,
}

/// What becomes of the rest of a line that is too long to be held.
#[derive(Debug)]
enum Overlong {
    /// It is data, and scanned.
    Data(UsageScanner),
    /// It is not read.
    Other,
}

/// What later chunks of a stream repeat of its first ones.
#[derive(Debug, Clone, Default)]
pub struct StreamIdentity {
    /// `id`.
    pub id: String,
    /// `model`.
    pub model: String,
    /// `created`, in Unix time.
    pub created: u64,
    /// One more than the highest `index` of a choice.
    pub choices: u32,
    /// The last `sequence_number` of a Responses stream.
    pub sequence_number: u64,
}

impl StreamMeter {
    /// A meter for a stream that answers a call of `api` to a model with `encoding`.
    #[must_use]
    pub fn new(api: Api, encoding: Encoding) -> Self {
        Self {
            api,
            line: Vec::new(),
            overlong: None,
            passed_over: false,
            framing: Framing::new(),
            output: OutputCounter::new(encoding),
            speech: 0,
            usage: None,
            finished: false,
            identity: StreamIdentity::default(),
            unreadable: 0,
        }
    }

    /// Reads the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(Line { text, ended, rest }) = self.framing.next_line(bytes) {
            bytes = rest;
            let whole = self.line.is_empty() && self.overlong.is_none();
            match (ended, whole) {
                (true, true) => self.read_line(text),
                (true, false) => {
                    self.hold(text);
                    self.end_held_line();
                }
                (false, _) => self.hold(text),
            }
        }
    }

    /// Reads the next bytes up to where the event under way ends, and tells where that is; all of them, where it does not
    /// end in them.
    pub fn push_to_boundary(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut read = 0;
        while let Some(line) = bytes.get(read..).filter(|rest| !rest.is_empty()) {
            let end = read + memchr2(b'\n', b'\r', line).map_or(line.len(), |end| end + 1);
            self.push(bytes.get(read..end).unwrap_or_default());
            read = end;
            if self.at_boundary() {
                return Some(read);
            }
        }
        None
    }

    /// The usage that upstream reported, once it has.
    #[must_use]
    pub const fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Tokenises the text that has passed, unless upstream has told its count or there is too little of it.
    pub fn count(&mut self) {
        if self.usage.is_none() {
            self.output.count();
        }
    }

    /// The output tokens counted in what has passed, without those of the text that was not counted yet.
    #[must_use]
    pub fn output_counted(&self) -> Tokens {
        self.output.counted().saturating_add(self.spoken())
    }

    /// The output tokens in all that has passed.
    #[must_use]
    pub fn output_total(&self) -> Tokens {
        self.output.total().saturating_add(self.spoken())
    }

    /// Whether all of the answer could be counted that has passed.
    #[must_use]
    pub const fn is_counted_whole(&self) -> bool {
        !self.passed_over && self.unreadable == 0
    }

    fn spoken(&self) -> Tokens {
        Tokens::from_bytes(self.speech.div_ceil(SPEECH_A_TOKEN))
    }

    /// Whether upstream has ended the stream, as opposed to its having broken off.
    #[must_use]
    pub const fn finished(&self) -> bool {
        self.finished
    }

    /// Whether all bytes so far are whole events, so that another may follow.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.framing.at_boundary()
    }

    /// What a chunk of the gateway's own has to repeat.
    #[must_use]
    pub const fn identity(&self) -> &StreamIdentity {
        &self.identity
    }

    /// Events that were not what the API documents.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn hold(&mut self, bytes: &[u8]) {
        match &mut self.overlong {
            Some(Overlong::Data(scanner)) => scanner.push(bytes),
            Some(Overlong::Other) => {}
            None => {
                self.line.extend_from_slice(bytes);
                // Never before the field's name is whole.
                if self.line.len() > LONGEST_LINE {
                    let start = std::mem::take(&mut self.line);
                    self.overlong = Some(data_of(&start).map_or(Overlong::Other, |data| {
                        self.passed_over |= self.may_be_answer(data);
                        let mut scanner = UsageScanner::new();
                        scanner.push(data);
                        Overlong::Data(scanner)
                    }));
                }
            }
        }
    }

    /// Whether data that begins so may be a part of the answer, rather than repeat some. A chunk of a few tokens is long
    /// where the caller wants the likeliest others of each.
    fn may_be_answer(&self, start: &[u8]) -> bool {
        match self.api {
            Api::ChatCompletions | Api::Completions | Api::Embeddings => true,
            // An event's type comes first.
            Api::Responses => memmem::find(start.get(..TYPE_WITHIN).unwrap_or(start), b".delta\"").is_some(),
        }
    }

    fn end_held_line(&mut self) {
        match self.overlong.take() {
            Some(Overlong::Data(scanner)) => {
                if let Some(usage) = scanner.usage() {
                    self.usage = Some(usage);
                    self.finished = true;
                }
                return;
            }
            Some(Overlong::Other) => return,
            None => {}
        }
        let mut line = std::mem::take(&mut self.line);
        self.read_line(&line);
        line.clear();
        self.line = line;
    }

    fn read_line(&mut self, line: &[u8]) {
        let Some(data) = data_of(line) else { return };
        if data == b"[DONE]" {
            self.finished = true;
            return;
        }
        let readable = match self.api {
            Api::ChatCompletions | Api::Completions | Api::Embeddings => self.read_chunk(data),
            Api::Responses => self.read_response_event(data),
        };
        if readable.is_none() {
            self.unreadable += 1;
        }
    }

    fn read_chunk(&mut self, data: &[u8]) -> Option<()> {
        let chunk: Chunk<'_> = serde_json::from_slice(data).ok()?;
        for choice in &chunk.choices {
            self.identity.choices = self.identity.choices.max(choice.index.saturating_add(1));
            let texts = [&choice.text].into_iter().flatten();
            let texts = texts.chain(choice.delta.iter().flat_map(Delta::texts));
            for text in texts {
                self.output.push(&text.0);
            }
            self.speech += choice.delta.as_ref().map_or(0, Delta::speech);
        }
        self.identify(chunk.id, chunk.model);
        if let Some(created) = chunk.created {
            self.identity.created = created;
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage::parse(usage.get().as_bytes())?);
        }
        Some(())
    }

    fn read_response_event(&mut self, data: &[u8]) -> Option<()> {
        let event: ResponseEvent<'_> = serde_json::from_slice(data).ok()?;
        let kind = event.kind?.0;
        self.identity.sequence_number = event.sequence_number.unwrap_or(self.identity.sequence_number);
        if kind.ends_with(".delta") {
            let text: Option<Text<'_>> = event.delta.and_then(|delta| serde_json::from_str(delta.get()).ok());
            if let Some(text) = text {
                self.output.push(&text.0);
            }
        }
        if let Some(response) = event.response {
            self.identify(response.id, response.model);
            if let Some(created) = response.created_at {
                self.identity.created = created;
            }
            if let Some(usage) = response.usage {
                self.usage = Some(Usage::parse(usage.get().as_bytes())?);
            }
        }
        self.finished |= matches!(&*kind, "response.completed" | "response.incomplete" | "response.failed");
        Some(())
    }

    fn identify(&mut self, id: Option<Text<'_>>, model: Option<Text<'_>>) {
        for (kept, text) in [(&mut self.identity.id, id), (&mut self.identity.model, model)] {
            if let Some(Text(text)) = text
                && kept.is_empty()
                && text.len() <= LONGEST_NAME
            {
                kept.push_str(&text);
            }
        }
    }
}

/// The value of a `data` field, if that is what the line is.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAT: &str = concat!(
        "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\",\"role\":\"assistant\"},\"index\":0}],\"created\":7,",
        "\"id\":\"chatcmpl-1\",\"model\":\"gpt-4o-mini\",\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hello \\\"wor\\u006cd\\\"\"},\"index\":0}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\" again\"}}]},",
        "\"index\":1}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\",\"index\":0}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14}}\n\n",
        "data: [DONE]\n\n",
    );

    const RESPONSES: &str = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":",
        "{\"id\":\"resp_1\",\"model\":\"gpt-4o-mini\",\"usage\":null}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,",
        "\"delta\":\"Hello world\"}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":",
        "{\"id\":\"resp_1\",\"output\":[{\"usage\":{}}],\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n",
    );

    fn metered(api: Api, pieces: &[&[u8]]) -> StreamMeter {
        let mut meter = StreamMeter::new(api, Encoding::O200k);
        pieces.iter().for_each(|piece| meter.push(piece));
        meter
    }

    fn seen(meter: &StreamMeter) -> (Option<Usage>, Tokens, bool, bool, u64) {
        let usage = meter.usage().copied();
        (usage, meter.output_total(), meter.finished(), meter.at_boundary(), meter.unreadable())
    }

    #[test]
    fn a_chat_stream_is_read_whole() {
        let meter = metered(Api::ChatCompletions, &[CHAT.as_bytes()]);
        let usage = *meter.usage().unwrap();
        assert_eq!((usage.input, usage.output), (Tokens::new(9), Tokens::new(5)));
        assert_eq!(meter.output_total(), Tokens::new(5));
        assert_eq!((meter.identity().id.as_str(), meter.identity().choices), ("chatcmpl-1", 2));
        assert!(meter.finished() && meter.at_boundary());
    }

    #[test]
    fn all_that_the_model_writes_counts_before_its_usage_comes() {
        let counted = |delta: &str| {
            let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
            metered(Api::ChatCompletions, &[event.as_bytes()]).output_total().get()
        };
        let custom =
            r#"{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"sh","input":"one two three"}}]}"#;
        assert_eq!(counted(custom), counted(r#"{"content":"shone two three"}"#));
        // Half a second of speech: 12,000 samples of two bytes, in base64.
        let speech =
            format!(r#"{{"audio":{{"id":"a","data":"{}","transcript":"one two"}}}}"#, "A".repeat(32_000));
        assert_eq!(counted(&speech), 10 + counted(r#"{"content":"one two"}"#));
    }

    #[test]
    fn what_is_too_long_to_be_counted_is_known_to_be_missing() {
        let long = "1".repeat(LONGEST_LINE);
        // What arrives in one piece need not be held.
        let whole = |api, event: &str| {
            let (start, rest) = event.as_bytes().split_at(20);
            assert!(metered(api, &[event.as_bytes()]).is_counted_whole());
            metered(api, &[start, rest]).is_counted_whole()
        };
        let chunk = format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"Hello\"}},\"logprobs\":{long}}}]}}\n\n"
        );
        assert!(!whole(Api::ChatCompletions, &chunk));
        let event = |kind: &str| {
            whole(Api::Responses, &format!("data: {{\"type\":\"response.{kind}\",\"logprobs\":{long}}}\n\n"))
        };
        assert!(!event("output_text.delta"));
        assert!(event("created") && event("output_text.done"), "they repeat what is known");
    }

    #[test]
    fn a_long_comment_is_one_line_whatever_it_says() {
        let comment = [b": ".as_slice(), &[b'-'; LONGEST_LINE]].concat();
        let mut meter =
            metered(Api::ChatCompletions, &[&comment, b"data: {\"usage\":{\"prompt_tokens\":1}}\n"]);
        assert_eq!((meter.usage(), meter.at_boundary()), (None, false));
        meter.push(&comment);
        meter.push(b"\n");
        assert!(!meter.at_boundary(), "a line's end is no empty line");
        meter.push(b"\n");
        assert!(meter.at_boundary());
    }

    #[test]
    fn a_responses_stream_is_read_whole() {
        let meter = metered(Api::Responses, &[RESPONSES.as_bytes()]);
        let usage = *meter.usage().unwrap();
        assert_eq!((usage.input, usage.output), (Tokens::new(3), Tokens::new(2)));
        assert_eq!(meter.output_total(), Tokens::new(2));
        assert_eq!((meter.identity().id.as_str(), meter.identity().sequence_number), ("resp_1", 2));
        assert!(meter.finished());
    }

    #[test]
    fn a_terminal_event_of_any_size_is_scanned_without_being_held() {
        let text = "lorem ipsum ".repeat(50_000);
        let event = format!(
            "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],\
             \"usage\":{{\"input_tokens\":3,\"output_tokens\":9}}}}}}\n\n"
        );
        for size in [1, 7, 4096, event.len()] {
            let mut meter = StreamMeter::new(Api::Responses, Encoding::O200k);
            for piece in event.as_bytes().chunks(size) {
                meter.push(piece);
                assert!(meter.line.len() <= LONGEST_LINE);
            }
            assert_eq!(meter.usage().unwrap().output, Tokens::new(9), "in pieces of {size}");
            assert!(meter.finished() && meter.at_boundary());
        }
    }

    #[test]
    fn what_is_not_understood_is_counted_and_passed_over() {
        let meter = metered(
            Api::ChatCompletions,
            &[
                b": comment\n\nid: 1\ndata: {broken\n\ndata: {\"usage\":{\"prompt_tokens\":-1}}\n\n",
                b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n",
            ],
        );
        assert_eq!(seen(&meter), (None, Tokens::new(1), false, true, 2));
    }

    #[test]
    fn the_middle_of_an_event_is_no_boundary() {
        for pieces in
            [&[&b"\r\n"[..], b"\r\n"][..], &[b"\r", b"\n", b"\r", b"\n"], &[b"\n", b"\n"], &[b"\r", b"\r"]]
        {
            let mut meter = metered(Api::ChatCompletions, &[b"data: {\"choices\":[]}"]);
            assert!(!meter.at_boundary());
            let (last, first) = pieces.split_last().unwrap();
            first.iter().for_each(|piece| meter.push(piece));
            // A carriage return ends the empty line, whether or not a line feed follows.
            assert_eq!(meter.at_boundary(), pieces.len() == 4, "{pieces:?}");
            meter.push(last);
            assert!(meter.at_boundary());
        }
    }

    #[test]
    fn reading_stops_where_an_event_ends() {
        for (framing, end) in [("\n", 2), ("\r\n", 3), ("\r", 2)] {
            let event = "event: a\ndata: {\"choices\":[]}\n\n".replace('\n', framing);
            let two = event.repeat(2);
            let expected = event.trim_end().len() + end;
            for cut in 0..event.trim_end().len() {
                let mut meter = metered(Api::ChatCompletions, &[&two.as_bytes()[..cut]]);
                assert_eq!(
                    meter.push_to_boundary(&two.as_bytes()[cut..]),
                    Some(expected - cut),
                    "{framing:?}"
                );
                assert!(meter.at_boundary());
            }
        }
        assert_eq!(metered(Api::ChatCompletions, &[b"data"]).push_to_boundary(b": {}\n"), None);
    }

    proptest! {
        #[test]
        fn any_split_in_any_framing_is_read_alike(
            cuts in prop::collection::vec(0_usize..2000, 0..12), responses in any::<bool>(),
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let (api, text) = if responses { (Api::Responses, RESPONSES) } else { (Api::ChatCompletions, CHAT) };
            let text = text.replace('\n', line_end);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut done = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[done..cut]);
                done = cut;
            }
            pieces.push(&text.as_bytes()[done..]);
            let whole = seen(&metered(api, &[text.as_bytes()]));
            prop_assert_eq!(seen(&metered(api, &pieces)), whole);
        }

        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            for api in [Api::ChatCompletions, Api::Responses] {
                let mut meter = StreamMeter::new(api, Encoding::O200k);
                pieces.iter().for_each(|piece| meter.push(piece));
                let _total = meter.output_total();
            }
        }
    }
}
