//! Messages and their parts: what chat completions and responses have in common.
//!
//! The rule is the one of OpenAI's cookbook, "How to count tokens with tiktoken", section 6: three tokens around each
//! message, one more for a name, three to prime the answer, and the text of role, name and content. It is published for
//! chat completions; responses are built from the same messages.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::basis::{Basis, REFERENCE_TOKENS};
use super::count::Count;
use super::image::{self, Detail};
use super::prompt_kind::PromptKind;
use super::tools::Declared;
use super::{audio, file, image_size, items, raw, tools};
use crate::model::Generation;
use crate::units::Tokens;

/// Adds the messages of `messages`, or the items of `input`, or the one message that `input` is when it is a text.
pub(super) fn conversation(count: &mut Count, items: &RawValue) {
    count.fixed(PRIMING);
    if !raw::is_array(items) {
        return plain(count, items);
    }
    count.elements(items, |count, item| {
        if raw::is_object(item) {
            message(count, item);
        } else {
            count.value(item);
        }
    });
}

/// Adds a message that is given as its text alone, with the role left to the API.
pub(super) fn plain(count: &mut Count, text: &RawValue) {
    count.fixed(MESSAGE + ROLE);
    content(count, text);
}

fn message(count: &mut Count, item: &RawValue) {
    let head = Head::of(item);
    if head.is_held_upstream(item) {
        let is_reference = head.kind.as_deref() == Some("item_reference");
        count.assumed(REFERENCE_TOKENS, if is_reference { Basis::Kept } else { Basis::Stored });
    }
    if head.kind.as_deref() == Some("reasoning") {
        return reasoning(count, item);
    }
    if head.role.as_deref() == Some("user") {
        count.reasoning.turn();
    }
    count.fixed(MESSAGE);
    let is_result = head.role.as_deref() == Some("tool");
    let is_call = matches!(head.kind.as_deref(), Some("function_call" | "custom_tool_call"));
    count.entries(item, |count, key, value| match key {
        "name" if is_call => {
            let before = count.total();
            count.value(value);
            // The result is headed by it, too.
            count.add(count.total().saturating_sub(before).min(LONGEST_NAME));
        }
        "name" => {
            count.fixed(NAME);
            count.value(value);
        }
        "content" if is_result && count.parallel => count.ascii(value),
        "content" | "output" | "summary" => content(count, value),
        "function_call" => call(count, value, false),
        "tool_calls" if raw::is_array(value) => calls(count, value),
        "call_id" if count.generation < Generation::Gpt5 => count.fixed(CALL_ID),
        "call_id" => count.fixed(CALL_ID_SINCE_GPT_5),
        "tool_call_id" => count.fixed(TOOL_CALL_ID),
        "tools" if raw::is_array(value) => tools::tools(count, value, Declared::Apart),
        "encrypted_content" => {
            let bytes = sealed_bytes(value) / COMPACTED_BYTES_A_TOKEN;
            count.assumed(Tokens::from_bytes(bytes), Basis::Bound);
        }
        // An earlier answer in sound, known to upstream by its id.
        "audio" if raw::is_object(value) => count.assumed(SPOKEN_ANSWER, Basis::Bound),
        // A picture that was drawn in an earlier turn, in base64.
        "result" => {
            let (tokens, basis) = image::tokens(count.images, None, Detail::Auto);
            count.assumed(tokens, basis);
        }
        "type" | "id" | "status" | "phase" => {}
        // Role, arguments, what tools did in earlier turns, and whatever is yet to come: upstream may show it to the model.
        _ => count.value(value),
    });
}

/// What tells the kinds of items apart.
struct Head<'a> {
    kind: Option<Cow<'a, str>>,
    role: Option<Cow<'a, str>>,
}

impl<'a> Head<'a> {
    fn of(item: &'a RawValue) -> Self {
        let mut head = Self { kind: None, role: None };
        raw::entries(item, |key, value| match key {
            "type" => head.kind = raw::text(value),
            "role" => head.role = raw::text(value),
            _ => {}
        });
        head
    }

    /// Whether an item only names what Azure holds: an earlier item, or what a tool found that ran there.
    fn is_held_upstream(&self, item: &RawValue) -> bool {
        let Some(fields) = self.kind.as_deref().and_then(items::result_fields) else { return false };
        let mut shown = false;
        raw::entries(item, |key, value| shown |= fields.contains(&key) && value.get() != "null");
        !shown
    }
}

/// Reasoning of an earlier answer, handed back: sealed, or by its id alone. Its summary is for readers, and not shown to the
/// model. Azure leaves out what belongs to a turn before the caller's last message (OpenAI, "Reasoning models", "Keeping
/// reasoning items in context").
fn reasoning(count: &mut Count, item: &RawValue) {
    count.fixed(REASONING_MARK);
    let mut tokens = None;
    count.entries(item, |count, key, value| match key {
        "encrypted_content" if value.get() != "null" => {
            let bytes = sealed_bytes(value).saturating_mul(10) / REASONING_TENTHS_A_TOKEN;
            let sealed = Tokens::from_bytes(bytes);
            tokens = Some(tokens.unwrap_or(Tokens::ZERO).saturating_add(sealed));
        }
        "content" if !raw::is_empty_array(value) => {
            tokens.get_or_insert(Tokens::ZERO);
            content(count, value);
        }
        "type" | "id" | "status" | "summary" | "encrypted_content" | "content" => {}
        _ => count.value(value),
    });
    count.reasoning.add(tokens.unwrap_or(REASONING_ITEM));
}

/// The bytes of a sealed text beyond what surrounds each.
fn sealed_bytes(value: &RawValue) -> usize {
    value.get().len().saturating_sub(SEALED_FRAME_BYTES)
}

/// Calls that the model made, each in a message of its own, or where there are several in one that calls them all.
fn calls(count: &mut Count, calls: &RawValue) {
    let mut several = 0_u32;
    raw::elements(calls, |_| several = several.saturating_add(1));
    count.parallel |= several > 1;
    count.elements(calls, |count, value| call(count, value, several > 1));
}

/// A call that the model made: `{"id", "type", "function": {"name", "arguments"}}`, or the inner object alone.
fn call(count: &mut Count, value: &RawValue, several: bool) {
    if !raw::is_object(value) {
        return count.value(value);
    }
    count.fixed(MESSAGE);
    count.entries(value, |count, key, value| match key {
        "name" | "arguments" => count.value(value),
        "function" | "custom" if raw::is_object(value) => {
            if several {
                count.fixed(PARALLEL_CALL);
            }
            count.entries(value, |count, key, value| {
                if matches!(key, "name" | "arguments" | "input") {
                    count.value(value);
                }
            });
        }
        _ => {}
    });
}

fn content(count: &mut Count, value: &RawValue) {
    if raw::is_array(value) {
        count.elements(value, part);
    } else {
        part(count, value);
    }
}

fn part(count: &mut Count, value: &RawValue) {
    if !raw::is_object(value) {
        return count.value(value);
    }
    let mut picture = None;
    let mut detail = Detail::Auto;
    // Where the picture is an object, its detail is in there and nowhere else.
    let mut detail_inside = None;
    let mut file = None;
    let mut is_kept = false;
    count.entries(value, |count, key, value| match key {
        "detail" => detail = Detail::of(value),
        "type"
            if names(value, "input_image")
                || names(value, "image_url")
                || names(value, "computer_screenshot") =>
        {
            picture.get_or_insert(None);
        }
        "type" if names(value, "input_file") || names(value, "file") => {
            file.get_or_insert(None);
        }
        "image_url" if raw::is_object(value) => {
            detail_inside = Some(Detail::Auto);
            count.entries(value, |_, key, value| match key {
                "url" => picture = Some(Some(value)),
                "detail" => detail_inside = Some(Detail::of(value)),
                _ => {}
            });
        }
        "image_url" => picture = Some(Some(value)),
        "file_data" => file = Some(Some(value)),
        "file" if raw::is_object(value) => count.entries(value, |_, key, value| match key {
            "file_data" => file = Some(Some(value)),
            "file_id" => is_kept |= value.get() != "null",
            _ => {}
        }),
        "input_audio" => sound(count, value),
        "file_id" => is_kept |= value.get() != "null",
        "type" | "file_url" | "annotations" | "logprobs" => {}
        // The text, and whatever is yet to come.
        _ => count.value(value),
    });
    if is_kept {
        count.assumed(Tokens::ZERO, Basis::Kept);
    }
    if let Some(source) = picture {
        count.has(PromptKind::Images);
        let size = source.and_then(raw::text).and_then(|url| image_size::of_data_url(&url));
        let (tokens, basis) = image::tokens(count.images, size, detail_inside.unwrap_or(detail));
        count.assumed(tokens, basis);
    }
    match file {
        Some(Some(data)) => match raw::text(data) {
            Some(data) => {
                count.has(PromptKind::Files);
                file::add(count, &data);
            }
            None => count.assumed(REFERENCE_TOKENS, Basis::Stored),
        },
        Some(None) => count.assumed(REFERENCE_TOKENS, Basis::Stored),
        None => {}
    }
}

/// `{"data": base64, "format": "wav" | "mp3"}`. Speech is heard at ten tokens a second (OpenAI, "Realtime costs"), and no
/// encoding that the API takes needs fewer than a thousand bytes for a second.
fn sound(count: &mut Count, value: &RawValue) {
    if !raw::is_object(value) {
        return count.value(value);
    }
    count.has(PromptKind::Audio);
    let mut format = None;
    raw::entries(value, |key, value| {
        if key == "format" {
            format = raw::text(value);
        }
    });
    count.entries(value, |count, key, value| {
        if key != "data" {
            return;
        }
        let length = raw::text(value).zip(format.as_ref());
        match length.and_then(|(data, format)| audio::milliseconds(&data, format)) {
            Some(length) => count.fixed(length.div_ceil(MILLISECONDS_A_TOKEN)),
            None => {
                let bytes = value.get().len() / 4 * 3;
                count.assumed(Tokens::from_bytes(bytes.div_ceil(AUDIO_BYTES_A_TOKEN)), Basis::Bound);
            }
        }
    });
}

/// Whether a value is the string `name`, however it is escaped.
fn names(value: &RawValue, name: &str) -> bool {
    raw::text(value).is_some_and(|text| text == name)
}

/// What primes the answer: `<|start|>assistant<|message|>`.
const PRIMING: u64 = 3;
/// What stands around each message.
const MESSAGE: u64 = 3;
/// What a name adds to its text.
const NAME: u64 = 1;
/// A role that the API fills in.
const ROLE: u64 = 1;
/// The header of a call's result: whose it is and for whom. Recorded answers count 2 to 10 for a call and its result.
const TOOL_CALL_ID: u64 = 9;
/// The same for an item of a response, which has no role: 7 to 12 for a call and its result, beside the function's name.
const CALL_ID: u64 = 4;
/// 12 to 14.
const CALL_ID_SINCE_GPT_5: u64 = 6;
/// A function's name has at most 64 characters.
const LONGEST_NAME: Tokens = Tokens::new(32);
/// `{"recipient_name":"functions.…","parameters":…}`.
const PARALLEL_CALL: u64 = 4;
/// What every sealed text has: a version, a time, an initial vector, a signature, and upstream's own marks, in base64.
const SEALED_FRAME_BYTES: usize = 850;
/// Tenths of a byte in base64 for each token of sealed reasoning beyond that: 48 to 70 in recorded answers.
const REASONING_TENTHS_A_TOKEN: usize = 48;
/// The same for a conversation that was compacted: 7 and more.
const COMPACTED_BYTES_A_TOKEN: usize = 7;
/// What an item of reasoning costs beside its content: recorded prompts have one token more for each, also where the content
/// is left out.
const REASONING_MARK: u64 = 1;
/// Reasoning that is known by its id alone: four of five recorded items are no longer.
const REASONING_ITEM: Tokens = Tokens::new(512);
const MILLISECONDS_A_TOKEN: u64 = 100;
const AUDIO_BYTES_A_TOKEN: usize = 100;
/// The most output tokens of the models that speak (Azure, "Azure OpenAI models", `gpt-4o-audio-preview`).
const SPOKEN_ANSWER: Tokens = Tokens::new(16_384);
