//! Kinds of requests, of which estimates differ from upstream's counts in the same way.

use crate::api::Api;

/// Requests whose prompts are estimated by the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PromptKind {
    /// Texts to complete.
    Completions,
    /// Texts to embed.
    Embeddings,
    /// A chat of text alone.
    Chat,
    /// A chat with tools.
    ChatTools,
    /// A response to text alone.
    Responses,
    /// A response with tools.
    ResponsesTools,
    /// Either with images, and nothing of the kinds that follow.
    Images,
    /// Either with a recording.
    Audio,
    /// Either with files.
    Files,
    /// Either with input that upstream holds: no two of them are alike, and nothing is learned from them.
    Stored,
}

impl PromptKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Completions,
        Self::Embeddings,
        Self::Chat,
        Self::ChatTools,
        Self::Responses,
        Self::ResponsesTools,
        Self::Images,
        Self::Audio,
        Self::Files,
        Self::Stored,
    ];

    /// A request to that API with nothing but text.
    #[must_use]
    pub const fn of(api: Api) -> Self {
        match api {
            Api::Completions => Self::Completions,
            Api::Embeddings => Self::Embeddings,
            Api::ChatCompletions => Self::Chat,
            Api::Responses => Self::Responses,
        }
    }

    /// The same with tools.
    pub(super) const fn with_tools(self) -> Self {
        match self {
            Self::Chat => Self::ChatTools,
            Self::Responses => Self::ResponsesTools,
            Self::Completions
            | Self::Embeddings
            | Self::ChatTools
            | Self::ResponsesTools
            | Self::Images
            | Self::Audio
            | Self::Files
            | Self::Stored => self,
        }
    }

    /// Its name in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Chat => "chat",
            Self::ChatTools => "chat_tools",
            Self::Responses => "responses",
            Self::ResponsesTools => "responses_tools",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Files => "files",
            Self::Stored => "stored",
        }
    }

    /// Its number where a correction is kept; never another kind's.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Completions => 1,
            Self::Embeddings => 2,
            Self::Chat => 3,
            Self::ChatTools => 4,
            Self::Responses => 5,
            Self::ResponsesTools => 6,
            Self::Images => 7,
            Self::Audio => 8,
            Self::Files => 9,
            Self::Stored => 10,
        }
    }
}
