//! Messages and their parts: what chat completions and responses have in common.
//!
//! The rule is the one of OpenAI's cookbook, "How to count tokens with tiktoken", section 6: three tokens around each
//! message, one more for a name, three to prime the answer, and the text of role, name and content. It is published for
//! chat completions; responses are built from the same messages.

use serde_json::value::RawValue;

use super::count::Count;
use super::estimate::{Basis, REFERENCE_TOKENS};
use super::image::{self, Detail};
use super::{image_size, items, raw};
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
    count.fixed(MESSAGE);
    if is_held_upstream(item) {
        count.assumed(REFERENCE_TOKENS, Basis::Stored);
    }
    count.entries(item, |count, key, value| match key {
        "name" => {
            count.fixed(NAME);
            count.value(value);
        }
        "content" | "output" | "summary" => content(count, value),
        "function_call" => call(count, value),
        "tool_calls" if raw::is_array(value) => count.elements(value, call),
        // A reasoning item handed back: base64 of what holds about a token in four bytes.
        "encrypted_content" => count.assumed(Tokens::from_bytes(value.get().len() / 4), Basis::Bound),
        // An earlier answer in sound, known to upstream by its id.
        "audio" if raw::is_object(value) => count.assumed(SPOKEN_ANSWER, Basis::Bound),
        // A picture that was drawn in an earlier turn, in base64.
        "result" => {
            let (tokens, basis) = image::tokens(count.images, None, Detail::Auto);
            count.assumed(tokens, basis);
        }
        "type" | "id" | "call_id" | "tool_call_id" | "status" | "phase" => {}
        // Role, arguments, what tools did in earlier turns, and whatever is yet to come: upstream may show it to the model.
        _ => count.value(value),
    });
}

/// Whether an item only names what Azure holds: an earlier item, or what a tool found that ran there.
fn is_held_upstream(item: &RawValue) -> bool {
    let mut shown_by = None;
    raw::entries(item, |key, value| {
        if key == "type" {
            shown_by = raw::text(value).and_then(|kind| items::result_fields(&kind));
        }
    });
    shown_by.is_some_and(|fields| {
        let mut shown = false;
        raw::entries(item, |key, value| shown |= fields.contains(&key) && value.get() != "null");
        !shown
    })
}

/// A call that the model made: `{"id", "type", "function": {"name", "arguments"}}`, or the inner object alone.
fn call(count: &mut Count, value: &RawValue) {
    if !raw::is_object(value) {
        return count.value(value);
    }
    count.fixed(MESSAGE);
    count.entries(value, |count, key, value| match key {
        "name" | "arguments" => count.value(value),
        "function" | "custom" if raw::is_object(value) => count.entries(value, |count, key, value| {
            if matches!(key, "name" | "arguments" | "input") {
                count.value(value);
            }
        }),
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
        "file" if raw::is_object(value) => count.entries(value, |_, key, value| {
            if key == "file_data" {
                file = Some(Some(value));
            }
        }),
        "input_audio" => sound(count, value),
        "type" | "file_id" | "file_url" | "annotations" | "logprobs" => {}
        // The text, and whatever is yet to come.
        _ => count.value(value),
    });
    if let Some(source) = picture {
        let size = source.and_then(raw::text).and_then(|url| image_size::of_data_url(&url));
        let (tokens, basis) = image::tokens(count.images, size, detail_inside.unwrap_or(detail));
        count.assumed(tokens, basis);
    }
    match file {
        Some(Some(data)) => {
            let pages = Tokens::from_bytes(data.get().len() / FILE_BYTES_A_TOKEN);
            count.assumed(pages.max(REFERENCE_TOKENS), Basis::Allowance);
        }
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
    count.entries(value, |count, key, value| {
        if key == "data" {
            let bytes = value.get().len() / 4 * 3;
            count.assumed(Tokens::from_bytes(bytes.div_ceil(AUDIO_BYTES_A_TOKEN)), Basis::Bound);
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
const AUDIO_BYTES_A_TOKEN: usize = 100;
/// The most output tokens of the models that speak (Azure, "Azure OpenAI models", `gpt-4o-audio-preview`).
const SPOKEN_ANSWER: Tokens = Tokens::new(16_384);
/// Upstream adds the text of each page and its picture, about 2,000 tokens for some 30 KB of PDF in base64.
const FILE_BYTES_A_TOKEN: usize = 16;
