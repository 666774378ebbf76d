//! Tools and output formats: JSON schemas that the API rewrites into the prompt.
//!
//! The rule for functions is the one of OpenAI's cookbook, "How to count tokens with tiktoken", section 7: `name:description`
//! for the function, `name:type:description` for each parameter, and fixed numbers around them. It is published for flat
//! parameters; nested ones follow it too, and what it does not mention counts as it is written.

use serde_json::value::RawValue;

use super::count::Count;
use super::estimate::{Basis, REFERENCE_TOKENS};
use super::items::Runs;
use super::{items, raw};
use crate::model::Encoding;

/// Adds `tools`, or `functions` as they were called before.
pub(super) fn tools(count: &mut Count, tools: &RawValue) {
    if !raw::is_array(tools) {
        return count.value(tools);
    }
    let mut any = false;
    count.elements(tools, |count, entry| {
        any = true;
        tool(count, entry);
    });
    if any {
        count.fixed(END);
    }
}

/// Adds `response_format`, or `text.format`: a schema is shown to the model as it is written, under a heading.
pub(super) fn format(count: &mut Count, format: &RawValue) {
    if !raw::is_object(format) {
        return;
    }
    count.entries(format, |count, key, value| match key {
        "json_schema" if raw::is_object(value) => count.entries(value, format_entry),
        _ => format_entry(count, key, value),
    });
}

fn format_entry(count: &mut Count, key: &str, value: &RawValue) {
    match key {
        "schema" => {
            count.fixed(FORMAT_HEADING);
            count.value(value);
        }
        "type" | "strict" => {}
        // Name, description, and whatever is yet to come.
        _ => count.value(value),
    }
}

/// `{"type": "function", "function": {"name", …}}`, or the inner object alone.
fn tool(count: &mut Count, entry: &RawValue) {
    if !raw::is_object(entry) {
        return count.value(entry);
    }
    if !runs_at_caller(entry) {
        count.assumed(REFERENCE_TOKENS, Basis::Allowance);
    }
    let mut own = Function::default();
    count.entries(entry, |count, key, value| match key {
        "function" | "custom" if raw::is_object(value) => {
            let mut inner = Function::default();
            count.entries(value, |count, key, value| inner.entry(count, key, value));
            inner.finish(count);
        }
        "type" | "execution" => {}
        _ => own.entry(count, key, value),
    });
    own.finish(count);
}

/// Whether a tool adds to the prompt no more than its definition. One without a type is a function of the old shape.
fn runs_at_caller(entry: &RawValue) -> bool {
    let (mut kind, mut execution, mut environment) = (None, None, None);
    raw::entries(entry, |key, value| match key {
        "type" => kind = raw::text(value),
        "execution" => execution = raw::text(value),
        "environment" => {
            raw::entries(value, |key, value| {
                if key == "type" {
                    environment = raw::text(value);
                }
            });
        }
        _ => {}
    });
    kind.is_none_or(|kind| {
        items::runs(&kind, execution.as_deref(), environment.as_deref()) == Some(Runs::AtCaller)
    })
}

/// The parts of a function that make up its first line.
#[derive(Default)]
struct Function {
    name: Option<String>,
    description: String,
}

impl Function {
    fn entry(&mut self, count: &mut Count, key: &str, value: &RawValue) {
        match key {
            "name" => self.name = Some(words(value)),
            "description" => self.description = words(value),
            "parameters" => schema(count, value, NESTED_SCHEMAS),
            "strict" => {}
            // The grammar of a custom tool, and whatever is yet to come.
            _ => count.value(value),
        }
    }

    fn finish(self, count: &mut Count) {
        if let Some(name) = self.name {
            count.fixed(function_start(count.encoding));
            count.text(&format!("{name}:{}", self.description));
        }
    }
}

/// The parameters of a function, or what an array of them holds.
fn schema(count: &mut Count, schema: &RawValue, depth: usize) {
    if depth == 0 || !raw::is_object(schema) {
        return count.value(schema);
    }
    count.entries(schema, |count, key, value| match key {
        "type" | "required" | "title" | "$schema" => {}
        "additionalProperties" if !raw::is_object(value) => {}
        "properties" if raw::is_object(value) => properties(count, value, depth),
        "items" => self::schema(count, value, depth - 1),
        _ => count.value(value),
    });
}

fn properties(count: &mut Count, properties: &RawValue, depth: usize) {
    let mut any = false;
    count.entries(properties, |count, name, value| {
        any = true;
        property(count, name, value, depth);
    });
    if any {
        count.fixed(PROPERTIES_START);
    }
}

fn property(count: &mut Count, name: &str, value: &RawValue, depth: usize) {
    if !raw::is_object(value) {
        count.text(name);
        return count.value(value);
    }
    count.fixed(PROPERTY_START);
    let mut kind = String::new();
    let mut description = String::new();
    count.entries(value, |count, key, value| match key {
        "type" => kind = words(value),
        "description" => description = words(value),
        "enum" if raw::is_array(value) => choices(count, value),
        "required" | "title" => {}
        "additionalProperties" if !raw::is_object(value) => {}
        "properties" if depth > 1 && raw::is_object(value) => properties(count, value, depth - 1),
        "items" => schema(count, value, depth - 1),
        _ => count.value(value),
    });
    count.text(&format!("{name}:{kind}:{description}"));
}

/// The published rule takes three tokens off for the list and adds three to each choice: none for the first.
fn choices(count: &mut Count, choices: &RawValue) {
    let mut around = 0;
    count.elements(choices, |count, choice| {
        count.fixed(around);
        around = if raw::text(choice).is_some() { CHOICE_START } else { 1 };
        count.value(choice);
    });
}

/// A string's text, without the full stop that the API takes off a description; other values as they are written.
fn words(value: &RawValue) -> String {
    let mut text = raw::text(value).map_or_else(|| value.get().to_owned(), std::borrow::Cow::into_owned);
    if text.ends_with('.') {
        text.pop();
    }
    text
}

const fn function_start(encoding: Encoding) -> u64 {
    match encoding {
        Encoding::O200k => 7,
        Encoding::Cl100k => 10,
    }
}

const END: u64 = 12;
const PROPERTIES_START: u64 = 3;
const PROPERTY_START: u64 = 3;
const CHOICE_START: u64 = 3;
/// "# Response Formats", the format's name as a heading, and the marks around the schema; not published.
const FORMAT_HEADING: u64 = 10;
/// How deep schemas within schemas are told apart. Each level reads what is below it once more.
const NESTED_SCHEMAS: usize = 8;
