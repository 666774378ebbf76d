//! A stream's usage: the usage event when it comes, and until then a count of the text that has passed.
//!
//! Events are read line by line (the Server-Sent Events format, WHATWG HTML 9.2), whatever pieces they arrive in. A
//! line is held only up to a bound: a longer one, as the event that ends a response and repeats it whole, is scanned
//! for its usage as it passes.

use memchr::{memchr2, memmem};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::framing::{Framing, Line};
use super::json::UsageScanner;
use super::usage::Usage;
use super::wire::{self, Chunk, Delta, ResponseEvent, Text};
use crate::api::Api;
use crate::model::Encoding;
use crate::tokens::OutputCounter;
use crate::units::Tokens;

/// The longest line that is held to be parsed as a whole.
const LONGEST_LINE: usize = 32 * 1024;
/// In how many bytes of its data an event of the Responses API says what it is.
const TYPE_WITHIN: usize = 256;
/// Speech is spoken at twenty tokens a second (OpenAI, "Realtime costs") and streamed as 24,000 samples of two bytes each.
const SPEECH_A_TOKEN: usize = 48_000 / 20 / 3 * 4;
/// How the types of events begin that summarise reasoning (OpenAI, "Responses streaming").
const REASONING_SUMMARY: &str = "response.reasoning_summary";
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
    /// What a model tells of its reasoning in other words, longer or shorter than what it is billed for.
    summary: OutputCounter,
    /// Characters of speech that have passed, in base64.
    speech: usize,
    usage: Option<Usage>,
    finished: bool,
    failed: Option<Failure>,
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

/// How an answer failed that had begun with a 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The content filter refused the prompt, or the prompt was too long.
    Prompt,
    /// In any other way.
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
            summary: OutputCounter::new(encoding),
            speech: 0,
            usage: None,
            finished: false,
            failed: None,
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
            self.summary.count();
        }
    }

    /// The output tokens counted in what has passed, without those of the text that was not counted yet.
    #[must_use]
    pub fn output_counted(&self) -> Tokens {
        self.output.counted().saturating_add(self.summary.counted()).saturating_add(self.spoken())
    }

    /// The most that [`Self::output_total`] can be, without tokenising.
    #[must_use]
    pub fn output_bound(&self) -> Tokens {
        self.output.bound().saturating_add(self.summary.bound()).saturating_add(self.spoken())
    }

    /// Bytes of the answer's own text that have passed: every token of it is billed.
    #[must_use]
    pub const fn answer_bytes(&self) -> u64 {
        self.output.bytes()
    }

    /// Tokens of the answer's own text that have passed.
    #[must_use]
    pub fn answer_total(&self) -> Tokens {
        self.output.total().saturating_add(self.spoken())
    }

    /// The output tokens in all that has passed.
    #[must_use]
    pub fn output_total(&self) -> Tokens {
        self.answer_total().saturating_add(self.summary.total())
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

    /// How the answer failed, where upstream said that it did.
    #[must_use]
    pub const fn failed(&self) -> Option<Failure> {
        self.failed
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
        // Microsoft's own samples have a blank behind it.
        if data.trim_ascii() == b"[DONE]" {
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
            for text in choice.delta.iter().flat_map(Delta::unknown_texts) {
                self.output.push(&text);
            }
            self.speech += choice.delta.as_ref().map_or(0, Delta::speech);
        }
        self.identify(chunk.id, chunk.model);
        if let Some(created) = chunk.created {
            self.identity.created = created;
        }
        if let Some(error) = chunk.error {
            self.failed = Some(Failure::of(error));
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
        if let Some(text) = event.delta.and_then(wire::written) {
            let is_summary = kind.starts_with(REASONING_SUMMARY);
            if is_summary { &mut self.summary } else { &mut self.output }.push(&text);
        }
        if kind == "error" {
            self.failed = event.error.or(event.code).map(Failure::of).or(Some(Failure::Other));
        }
        if let Some(response) = event.response {
            self.identify(response.id, response.model);
            if let Some(created) = response.created_at {
                self.identity.created = created;
            }
            if kind == "response.failed" {
                self.failed = response.error.map(Failure::of).or(Some(Failure::Other));
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

impl Failure {
    /// Reads an `error` object, or its code alone.
    fn of(error: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Error<'a> {
            #[serde(borrow)]
            code: Option<&'a RawValue>,
        }
        let code = match serde_json::from_str::<Error<'_>>(error.get()) {
            Ok(Error { code }) => code,
            Err(_other_shape) => Some(error),
        };
        match code.map(RawValue::get) {
            Some(r#""content_filter""# | r#""context_length_exceeded""#) => Self::Prompt,
            _ => Self::Other,
        }
    }
}

/// The value of a `data` field, if that is what the line is.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

#[cfg(test)]
mod tests;
