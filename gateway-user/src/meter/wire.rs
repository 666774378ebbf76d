//! Answers and the events of streams, as far as they are read (OpenAI API reference: "Chat completion chunk", "Responses streaming").

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A string that is borrowed unless it is written with escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A chunk of a chat or of an older completion.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    pub(super) created: Option<u64>,
    #[serde(borrow, default)]
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    /// Upstream's account of its failure.
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: u32,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
}

/// The part of an answer that a chunk brings.
#[derive(Default)]
pub(super) struct Delta<'a> {
    content: Option<Text<'a>>,
    refusal: Option<Text<'a>>,
    function_call: Option<Function<'a>>,
    tool_calls: Option<Vec<ToolCall<'a>>>,
    audio: Option<Audio<'a>>,
    /// Fields that the API reference does not name, with what they hold: `reasoning_content`, and whatever is yet to come.
    others: Vec<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Delta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DeltaVisitor;

        impl<'de> Visitor<'de> for DeltaVisitor {
            type Value = Delta<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta<'de>, A::Error> {
                let mut delta = Delta::default();
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        "content" => once(&mut delta.content, map.next_value()?)?,
                        "refusal" => once(&mut delta.refusal, map.next_value()?)?,
                        "function_call" => once(&mut delta.function_call, map.next_value()?)?,
                        "tool_calls" => once(&mut delta.tool_calls, map.next_value()?)?,
                        "audio" => once(&mut delta.audio, map.next_value()?)?,
                        // Azure's citations of its searches (`context`), and padding: the model wrote none of it.
                        "role" | "context" | "annotations" | "obfuscation" | "end_turn" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => delta.others.push(map.next_value()?),
                    }
                }
                Ok(delta)
            }
        }

        deserializer.deserialize_map(DeltaVisitor)
    }
}

/// Takes a field's value, unless there is one already: nobody knows which of the two counts.
fn once<T, E: serde::de::Error>(field: &mut Option<T>, value: Option<T>) -> Result<(), E> {
    match (field.is_some(), value) {
        (true, Some(_)) => Err(E::custom("a field occurs twice")),
        (_, None) => Ok(()),
        (false, value) => {
            *field = value;
            Ok(())
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) custom: Option<Custom<'a>>,
}

/// A call of a tool that takes text.
#[derive(Deserialize)]
pub(super) struct Custom<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<Text<'a>>,
}

/// Speech, and what it says.
#[derive(Deserialize)]
pub(super) struct Audio<'a> {
    /// In base64.
    #[serde(borrow)]
    pub(super) data: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) transcript: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) arguments: Option<Text<'a>>,
}

impl<'a> Delta<'a> {
    /// All that the model has written in it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Text<'a>> {
        let tools = || self.tool_calls.iter().flatten();
        let functions = self.function_call.iter().chain(tools().filter_map(|call| call.function.as_ref()));
        let functions = functions.flat_map(|function| [&function.name, &function.arguments]);
        let customs = tools().filter_map(|call| call.custom.as_ref());
        let customs = customs.flat_map(|custom| [&custom.name, &custom.input]);
        let spoken = self.audio.iter().map(|audio| &audio.transcript);
        [&self.content, &self.refusal].into_iter().chain(functions).chain(customs).chain(spoken).flatten()
    }

    /// Text in fields that the API reference does not name.
    pub(super) fn unknown_texts(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.others.iter().filter_map(|value| written(value))
    }

    /// How many characters of speech in base64 are in it.
    pub(super) fn speech(&self) -> usize {
        self.audio.iter().filter_map(|audio| audio.data.as_ref()).map(|Text(data)| data.len()).sum()
    }
}

/// An answer in one piece, of any API.
#[derive(Deserialize)]
pub(super) struct Whole<'a> {
    /// Of a chat or of an older completion.
    #[serde(borrow, default)]
    pub(super) choices: Vec<WholeChoice<'a>>,
    /// Of the Responses API.
    #[serde(borrow, default)]
    pub(super) output: Vec<Item<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WholeChoice<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    /// It has the fields of a delta.
    #[serde(borrow)]
    pub(super) message: Option<Delta<'a>>,
}

/// What the model wrote of an item: a message, or a call of a function or a tool that takes text.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Vec<Part<'a>>>,
    #[serde(borrow)]
    pub(super) arguments: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) input: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Text<'a>>,
}

/// An event of a Responses stream.
#[derive(Deserialize)]
pub(super) struct ResponseEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    pub(super) sequence_number: Option<u64>,
    #[serde(borrow)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) response: Option<ResponseObject<'a>>,
    /// Of an event of the type `error`.
    #[serde(borrow)]
    pub(super) code: Option<&'a RawValue>,
    /// The same, as some write it.
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct ResponseObject<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    pub(super) created_at: Option<u64>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// What a value of a delta may hold of the model's text: a string's characters, and an object or a list as it is written.
pub(super) fn written(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    if text.starts_with('"') {
        return serde_json::from_str::<Text<'_>>(text).ok().map(|Text(text)| text);
    }
    text.starts_with(['{', '[']).then_some(Cow::Borrowed(text))
}
