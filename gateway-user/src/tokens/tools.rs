//! Tools and output formats: JSON schemas that the API rewrites into the prompt.
//!
//! Functions are declared to the model as TypeScript, in a namespace (OpenAI's harmony format, "Function calling",
//! <https://developers.openai.com/cookbook/articles/openai-harmony>). The format is published for the models since gpt-oss;
//! recorded answers of Azure show the same counts from GPT-3.5 on. What TypeScript has no place for counts as it is written.

use serde_json::value::RawValue;

use super::basis::{Basis, REFERENCE_TOKENS};
use super::count::Count;
use super::items::Runs;
use super::{items, raw, schema};
use crate::model::Generation;
use crate::units::Tokens;

/// Which message of the prompt declares the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// The one with the instructions: `tools` of a response.
    WithInstructions,
    /// A message of its own: `tools` of a chat completion since GPT-5, and of an item of a response's input.
    Apart,
}

/// Adds `tools`, or `functions` as they were called before.
pub(super) fn tools(count: &mut Count, tools: &RawValue, declared: Declared) {
    if !raw::is_array(tools) {
        return count.value(tools);
    }
    let mut any = false;
    count.elements(tools, |count, entry| {
        any = true;
        tool(count, entry);
    });
    if any {
        count.kind = count.kind.with_tools();
        count.fixed(match declared {
            Declared::WithInstructions => NAMESPACE,
            Declared::Apart if count.generation < Generation::Gpt5 => NAMESPACE + MESSAGE,
            Declared::Apart => NAMESPACE + MESSAGE + MESSAGE_OF_TOOLS,
        });
    }
}

/// Adds `tool_choice`, or `function_call`: what the answer has to begin with. Since GPT-5 that is no part of the prompt.
pub(super) fn choice(count: &mut Count, choice: &RawValue) {
    if count.generation >= Generation::Gpt5 {
        return;
    }
    match raw::text(choice).as_deref() {
        Some("auto" | "none") => {}
        Some(_) => count.fixed(CHOSEN),
        None if raw::is_object(choice) => {
            count.fixed(CHOSEN);
            count.entries(choice, |count, key, value| match key {
                "type" | "mode" => {}
                "function" | "custom" if raw::is_object(value) => {
                    count.entries(value, |count, _name, value| count.compact(value));
                }
                _ => count.compact(value),
            });
        }
        None => {}
    }
}

/// Adds `response_format` of a chat completion: a schema is shown to the model as JSON, under a heading.
pub(super) fn response_format(count: &mut Count, format: &RawValue) {
    if !raw::is_object(format) {
        return;
    }
    let mut has_schema = false;
    raw::entries(format, |key, _value| has_schema |= matches!(key, "json_schema" | "schema"));
    if has_schema {
        count.fixed(FORMAT_HEADING);
    }
    self::format(count, format);
}

/// Adds `text.format` of a response: the same.
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
        "schema" => count.compact(value),
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
    let kind = Kind::of(entry);
    kind.add(count);
    count.entries(entry, |count, key, value| match key {
        "function" | "custom" if raw::is_object(value) => count.entries(value, definition),
        // A namespace.
        "tools" if raw::is_array(value) => count.elements(value, tool),
        "type" | "execution" | "defer_loading" => {}
        _ => definition(count, key, value),
    });
}

/// A part of what defines a function: `// description`, then `type name = (_: …) => any;`.
fn definition(count: &mut Count, key: &str, value: &RawValue) {
    match key {
        "name" => {
            count.fixed(FUNCTION);
            count.value(value);
        }
        "description" => {
            count.fixed(COMMENT);
            count.value(value);
        }
        "parameters" => schema::parameters(count, value),
        "strict" => {}
        // The grammar of a custom tool, and whatever is yet to come.
        _ => count.compact(value),
    }
}

/// What a tool adds beside its definition.
enum Kind {
    Function,
    Custom,
    ClientSearch,
    UpstreamSearch,
    BuiltIn,
    Upstream,
}

impl Kind {
    /// A tool without a type is a function of the old shape.
    fn of(entry: &RawValue) -> Self {
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
        let Some(kind) = kind else { return Self::Function };
        match (&*kind, items::runs(&kind, execution.as_deref(), environment.as_deref())) {
            ("function" | "namespace", _) => Self::Function,
            ("custom", _) => Self::Custom,
            ("tool_search", Some(Runs::AtCaller)) => Self::ClientSearch,
            ("tool_search", _) => Self::UpstreamSearch,
            (_, Some(Runs::AtCaller)) => Self::BuiltIn,
            (_, Some(Runs::AtUpstream)) => Self::Upstream,
            // Strict budgets refuse it; what others hold it at is what it is written in.
            (_, None) => Self::Function,
        }
    }

    fn add(&self, count: &mut Count) {
        match self {
            Self::Function => {}
            Self::Custom => count.fixed(CUSTOM),
            Self::ClientSearch => count.fixed(CLIENT_SEARCH),
            Self::UpstreamSearch => count.assumed(UPSTREAM_SEARCH, Basis::Allowance),
            Self::BuiltIn => count.assumed(BUILT_IN, Basis::Allowance),
            Self::Upstream => count.assumed(REFERENCE_TOKENS, Basis::Allowance),
        }
    }
}

/// `# Tools`, `## functions`, `namespace functions {` and its end.
const NAMESPACE: u64 = 15;
/// What is around the message that declares tools.
const MESSAGE: u64 = 3;
/// How a message of its own says where calls are to be written; not published. Recorded answers of GPT-5 to GPT-5.6 count 79
/// to 90.
const MESSAGE_OF_TOOLS: u64 = 88;
/// `type`, ` = (_: `, `) => any;` and the blank line.
const FUNCTION: u64 = 7;
/// `//` and the end of the line.
const COMMENT: u64 = 2;
/// How a custom tool is to be called, which a function's type says by itself.
const CUSTOM: u64 = 30;
/// The start of an answer that calls: ` to=functions.` and the channel.
const CHOSEN: u64 = 6;
/// How the model is told to search for tools; not published. Recorded answers of GPT-5.4 count about 100.
const CLIENT_SEARCH: u64 = 110;
/// The same where Azure searches, and the names of what it may find: 340 to 520 in recorded answers.
const UPSTREAM_SEARCH: Tokens = Tokens::new(512);
/// How the model is told of a shell, of patches or of a screen at the caller's; not published.
const BUILT_IN: Tokens = Tokens::new(300);
/// "# Response Formats", the format's name as a heading, and the marks around the schema; not published.
const FORMAT_HEADING: u64 = 10;
