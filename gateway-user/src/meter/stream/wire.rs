//! The events of streams, as far as they are read (OpenAI API reference: "Chat completion chunk", "Responses streaming").

use std::borrow::Cow;

use serde::Deserialize;
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

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) reasoning_content: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) function_call: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    pub(super) audio: Option<Audio<'a>>,
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
        [&self.content, &self.refusal, &self.reasoning_content]
            .into_iter()
            .chain(functions)
            .chain(customs)
            .chain(spoken)
            .flatten()
    }

    /// How many characters of speech in base64 are in it.
    pub(super) fn speech(&self) -> usize {
        self.audio.iter().filter_map(|audio| audio.data.as_ref()).map(|Text(data)| data.len()).sum()
    }
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
}
