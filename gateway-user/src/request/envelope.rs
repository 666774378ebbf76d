//! The fields of a JSON body that the gateway acts on, with where they stand.
//!
//! The body is parsed once, in full, without copying it: `serde_json` proves it well-formed and lends each field's bytes.
//! What another parser could read differently is refused rather than guessed: a field given twice, or one whose name
//! differs only in case from one that the gateway acts on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::shape::{self, ShapeError};
use super::{elements, tools};

/// What a body asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `model`, where it is there.
    pub model: Option<ModelField<'a>>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// `stream_options`.
    pub stream_options: StreamOptions,
    /// `max_tokens`, `max_completion_tokens` and `max_output_tokens`.
    pub caps: [Option<Cap>; CapKey::ALL.len()],
    /// How many answers upstream writes for each prompt: the larger of `n` and `best_of`.
    pub choices: u64,
    /// How many prompts a completion has: one, unless `prompt` is a list of texts or of lists of token ids.
    pub prompts: u64,
    /// Why the call cannot be metered, if it cannot.
    pub unmeterable: Option<Unmeterable>,
    /// Whether it asks to be served at another price than usual: `service_tier`.
    pub is_dearer: bool,
    /// Where the next field would go: right behind the opening brace.
    pub fields_start: usize,
    /// Whether the body has no field at all.
    pub is_empty: bool,
}

/// A body's `model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelField<'a> {
    /// The name; nothing where the value is no string.
    pub name: Option<Cow<'a, str>>,
    /// Where the value stands in the body.
    pub value: Range<usize>,
}

/// The name of a field that limits the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapKey {
    /// `max_tokens`: chat before reasoning models, and completions.
    MaxTokens,
    /// `max_completion_tokens`: chat, reasoning included.
    MaxCompletionTokens,
    /// `max_output_tokens`: responses.
    MaxOutputTokens,
}

/// A limit that the caller set on the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// The limit, of one answer; `None` where the field is `null`.
    pub tokens: Option<u64>,
    /// Where the value stands in the body.
    pub value: Range<usize>,
}

/// What the caller said of usage on its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StreamOptions {
    /// No such field.
    #[default]
    Absent,
    /// The field is `null`; here.
    Null(Range<usize>),
    /// An object without `include_usage`.
    Silent {
        /// Right behind its opening brace.
        fields_start: usize,
        /// Whether it has no field at all.
        is_empty: bool,
    },
    /// `include_usage` is true.
    Asked,
    /// `include_usage` is false or `null`; the value stands here.
    Declined(Range<usize>),
}

/// What in a body escapes metering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmeterable {
    /// `background: true`: the answer is fetched later, by a route that does not exist.
    Background,
    /// `previous_response_id` or `conversation`: input that upstream keeps for the account, whichever tenant it is of.
    StoredState(&'static str),
    /// A stored `prompt`, or what upstream searches for the answer: input that is not in the request.
    StoredInput(&'static str),
    /// A tool of this type that runs upstream, and spends there, or may.
    HostedTool(String),
    /// `multi_agent` or `context_management`: upstream makes calls of its own for this one.
    OwnCalls(&'static str),
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, or not an object.
    #[error("the body is not a JSON object: {0}")]
    Syntax(String),
    /// Not UTF-8.
    #[error("the body is not UTF-8: byte {0}")]
    Encoding(usize),
    /// A field that the gateway acts on occurs twice.
    #[error("the field `{0}` occurs more than once")]
    Duplicate(&'static str),
    /// A field's name differs only in case, or in letters that fold to the same, from one that the gateway acts on.
    #[error("the field `{found}` must be written `{expected}`")]
    Case {
        /// As written.
        found: String,
        /// As it should be.
        expected: &'static str,
    },
    /// A field has a value of the wrong kind.
    #[error("the field `{key}` must be {expected}")]
    Value {
        /// Which field.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// More structure than it may have.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// More answers are asked for than Azure gives.
    #[error("the field `{key}` must be at most {MOST_CHOICES}, found {found}")]
    Choices {
        /// Which field.
        key: &'static str,
        /// Its value.
        found: u64,
    },
    /// Two fields limit the output.
    #[error("the fields `{0}` and `{1}` exclude each other")]
    Caps(&'static str, &'static str),
}

impl CapKey {
    /// Every such field; a field's place here is its place in [`Envelope::caps`].
    pub const ALL: [Self; 3] = [Self::MaxTokens, Self::MaxCompletionTokens, Self::MaxOutputTokens];

    /// The field's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is no JSON object, or says something twice, ambiguously or in the wrong kind.
    pub fn parse(body: &'a [u8]) -> Result<Self, EnvelopeError> {
        // Skipped strings are not checked by the parser, and nothing of another encoding is JSON (RFC 8259, 8.1).
        let text = std::str::from_utf8(body).map_err(|error| EnvelopeError::Encoding(error.valid_up_to()))?;
        shape::check(body)?;
        let fields: Fields<'a> = serde_json::from_str(text).map_err(syntax)?;
        let mut seen = [false; KEYS.len()];
        let opening = body.iter().position(|byte| *byte == b'{').unwrap_or_default();
        let mut envelope = Self {
            choices: 1,
            prompts: 1,
            fields_start: opening + 1,
            is_empty: fields.is_empty,
            ..Self::default()
        };
        if let Some(error) = fields.ambiguous {
            return Err(error);
        }
        for (place, value) in fields.known {
            if std::mem::replace(&mut seen[place], true) {
                return Err(EnvelopeError::Duplicate(KEYS[place]));
            }
            envelope.take(KEYS[place], value, body)?;
        }
        let mut named = CapKey::ALL
            .into_iter()
            .filter(|key| envelope.caps[*key as usize].as_ref().is_some_and(|cap| cap.tokens.is_some()));
        if let (Some(first), Some(second)) = (named.next(), named.next()) {
            return Err(EnvelopeError::Caps(first.as_str(), second.as_str()));
        }
        Ok(envelope)
    }

    /// The same without anything lent by the body.
    #[must_use]
    pub fn into_owned(self) -> Envelope<'static> {
        let Self {
            model,
            stream,
            stream_options,
            caps,
            choices,
            prompts,
            unmeterable,
            is_dearer,
            fields_start,
            is_empty,
        } = self;
        let model = model.map(|ModelField { name, value }| ModelField {
            name: name.map(|name| Cow::Owned(name.into_owned())),
            value,
        });
        Envelope {
            model,
            stream,
            stream_options,
            caps,
            choices,
            prompts,
            unmeterable,
            is_dearer,
            fields_start,
            is_empty,
        }
    }

    /// Which of `keys` limits the output, and the limit, where the caller set one. Others are not known to the API that is
    /// called, and limit nothing.
    #[must_use]
    pub fn named_cap(&self, keys: &[CapKey]) -> Option<(CapKey, u64)> {
        keys.iter().find_map(|key| Some((*key, self.caps[*key as usize].as_ref()?.tokens?)))
    }

    /// How many answers upstream writes for this call; at least one.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.choices.max(1).saturating_mul(self.prompts.max(1))
    }

    /// Whether the caller wants the usage chunk of a stream.
    #[must_use]
    pub const fn asks_for_usage(&self) -> bool {
        matches!(self.stream_options, StreamOptions::Asked)
    }

    fn take(&mut self, key: &'static str, value: &'a RawValue, body: &[u8]) -> Result<(), EnvelopeError> {
        let range = range_in(body, value.get());
        match key {
            "model" => {
                let name =
                    value.get().starts_with('"').then(|| parsed(key, value, "a string")).transpose()?;
                self.model = Some(ModelField { name, value: range });
            }
            "stream" => self.stream = parsed::<Option<bool>>(key, value, "true or false")?.unwrap_or(false),
            "stream_options" => self.stream_options = stream_options(value, range)?,
            "n" | "best_of" => {
                let times = parsed::<Option<u64>>(key, value, "a positive integer")?.unwrap_or(1);
                if times > MOST_CHOICES {
                    return Err(EnvelopeError::Choices { key, found: times });
                }
                self.choices = self.choices.max(times);
            }
            "background" => {
                if parsed::<Option<bool>>(key, value, "true or false")? == Some(true) {
                    self.unmeterable = Some(Unmeterable::Background);
                }
            }
            "previous_response_id" | "conversation" => self.escapes(value, Unmeterable::StoredState(key)),
            "data_sources" | "dataSources" | "web_search_options" => {
                self.escapes(value, Unmeterable::StoredInput(key));
            }
            "multi_agent" | "context_management" => self.escapes(value, Unmeterable::OwnCalls(key)),
            "prompt" => {
                // A stored template of the Responses API is an object; a prompt of completions never is.
                if value.get().starts_with('{') {
                    self.escapes(value, Unmeterable::StoredInput(key));
                }
                self.prompts = prompts(value);
            }
            "input" => {
                if names_stored_item(value)? {
                    self.escapes(value, Unmeterable::StoredState(key));
                }
            }
            "service_tier" => {
                let tier = parsed::<Option<Cow<'_, str>>>(key, value, "a string")?;
                self.is_dearer = tier.is_some_and(|tier| !matches!(&*tier, "auto" | "default" | "flex"));
            }
            "tools" => {
                if let Some(kind) = hosted_tool(value)? {
                    self.escapes(value, Unmeterable::HostedTool(kind));
                }
            }
            _ => {
                if let Some(cap) = CapKey::ALL.into_iter().find(|cap| cap.as_str() == key) {
                    let tokens = parsed(key, value, "a non-negative integer")?;
                    self.caps[cap as usize] = Some(Cap { tokens, value: range });
                }
            }
        }
        Ok(())
    }

    /// Notes that a value escapes metering. State with an owner goes before the rest, because it is refused to more tenants.
    fn escapes(&mut self, value: &RawValue, how: Unmeterable) {
        let replaces = match &self.unmeterable {
            None => true,
            Some(Unmeterable::Background | Unmeterable::StoredState(_)) => false,
            Some(Unmeterable::StoredInput(_) | Unmeterable::HostedTool(_) | Unmeterable::OwnCalls(_)) => {
                matches!(how, Unmeterable::StoredState(_))
            }
        };
        if value.get() != "null" && replaces {
            self.unmeterable = Some(how);
        }
    }
}

/// The most that Azure takes as `n` and `best_of` (Azure OpenAI REST API reference, "Completions" and "Chat completions").
const MOST_CHOICES: u64 = 128;
/// The fields that the gateway acts on.
const KEYS: [&str; 20] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "background",
    "previous_response_id",
    "conversation",
    "prompt",
    "tools",
    "data_sources",
    "dataSources",
    "web_search_options",
    "input",
    "service_tier",
    "multi_agent",
    "context_management",
];

/// A body's fields: those that the gateway acts on, in their order, and the first whose name is ambiguous.
#[derive(Default)]
struct Fields<'a> {
    known: Vec<(usize, &'a RawValue)>,
    ambiguous: Option<EnvelopeError>,
    is_empty: bool,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields { is_empty: true, known: Vec::with_capacity(4), ambiguous: None };
                while let Some(Key(key)) = map.next_key()? {
                    fields.is_empty = false;
                    if let Some(place) = KEYS.iter().position(|known| *known == key) {
                        let value = map.next_value()?;
                        // A second one is enough to say so.
                        if fields.known.len() <= KEYS.len() {
                            fields.known.push((place, value));
                        }
                        continue;
                    }
                    map.next_value::<IgnoredAny>()?;
                    let folded = folded(&key);
                    if let Some(expected) = KEYS.iter().find(|known| known.eq_ignore_ascii_case(&folded)) {
                        fields
                            .ambiguous
                            .get_or_insert_with(|| EnvelopeError::Case { found: key.into_owned(), expected });
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A field's name, borrowed unless it is written with escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A name as parsers read it that take letters of either case for the same: beyond ASCII, `K` (the Kelvin sign) is a `k`, and
/// `ſ` an `s`.
fn folded(key: &str) -> Cow<'_, str> {
    if key.is_ascii() {
        return Cow::Borrowed(key);
    }
    Cow::Owned(key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

fn stream_options(value: &RawValue, range: Range<usize>) -> Result<StreamOptions, EnvelopeError> {
    const OBJECT: &str = "an object";
    if value.get() == "null" {
        return Ok(StreamOptions::Null(range));
    }
    let fields: OptionFields<'_> = parsed("stream_options", value, OBJECT)?;
    let Some(include_usage) = fields.include_usage else {
        return Ok(StreamOptions::Silent { fields_start: range.start + 1, is_empty: fields.is_empty });
    };
    if fields.again {
        return Err(EnvelopeError::Duplicate("stream_options.include_usage"));
    }
    match parsed("stream_options.include_usage", include_usage, "true or false")? {
        Some(true) => Ok(StreamOptions::Asked),
        Some(false) | None => {
            let inner = range_in(value.get().as_bytes(), include_usage.get());
            Ok(StreamOptions::Declined(range.start + inner.start..range.start + inner.end))
        }
    }
}

/// The fields of `stream_options`.
struct OptionFields<'a> {
    include_usage: Option<&'a RawValue>,
    again: bool,
    is_empty: bool,
}

impl<'de> Deserialize<'de> for OptionFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OptionsVisitor;

        impl<'de> Visitor<'de> for OptionsVisitor {
            type Value = OptionFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OptionFields<'de>, A::Error> {
                let mut fields = OptionFields { include_usage: None, again: false, is_empty: true };
                while let Some(Key(key)) = map.next_key()? {
                    fields.is_empty = false;
                    if folded(&key).eq_ignore_ascii_case("include_usage") {
                        fields.again |= fields.include_usage.is_some() || key != "include_usage";
                        fields.include_usage = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(OptionsVisitor)
    }
}

/// How many prompts the value of `prompt` is: a list of token ids is one, any other list as many as it has elements.
fn prompts(value: &RawValue) -> u64 {
    if !value.get().starts_with('[') {
        return 1;
    }
    let (mut count, mut all_numbers) = (0, true);
    let read = elements::each(value, |element: &RawValue| {
        count += 1;
        all_numbers &= element.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        Ok(())
    });
    if read.is_err() || all_numbers { 1 } else { count }
}

/// Whether any item of the Responses API's input is nothing but the id of one that upstream holds. Its `type`,
/// `item_reference`, may be left out; those that have it are found by it, where the prompt is estimated.
fn names_stored_item(input: &RawValue) -> Result<bool, EnvelopeError> {
    #[derive(serde::Deserialize)]
    struct Item<'a> {
        id: Option<IgnoredAny>,
        role: Option<IgnoredAny>,
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    const ITEMS: &str = "a text or a list of items, each with one `type`";
    let text = input.get();
    // Most have no ids, and are not read any further.
    if !text.starts_with('[') || !(text.contains(r#""id""#) || text.contains(r"\u00")) {
        return Ok(false);
    }
    let mut names = false;
    let read = elements::each(input, |element: &RawValue| {
        if element.get().starts_with('{') {
            let item: Item<'_> = serde_json::from_str(element.get())?;
            names |= item.id.is_some() && item.role.is_none() && item.kind.is_none();
        }
        Ok(())
    });
    read.map(|()| names).map_err(|_syntax| EnvelopeError::Value { key: "input", expected: ITEMS })
}

/// The type of the first tool that upstream runs itself, or may.
fn hosted_tool(value: &RawValue) -> Result<Option<String>, EnvelopeError> {
    let wrong = EnvelopeError::Value { key: "tools", expected: "a list of objects with one `type` each" };
    tools::hosted(value).map_err(|_syntax| wrong)
}

fn parsed<'a, T: Deserialize<'a>>(
    key: &'static str,
    value: &'a RawValue,
    expected: &'static str,
) -> Result<T, EnvelopeError> {
    serde_json::from_str(value.get()).map_err(|_kind| EnvelopeError::Value { key, expected })
}

/// Where a part that was lent from `whole` stands in it.
fn range_in(whole: &[u8], part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    start..start + part.len()
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of `map_err`")]
fn syntax(error: serde_json::Error) -> EnvelopeError {
    EnvelopeError::Syntax(error.to_string())
}

#[cfg(test)]
mod tests;
