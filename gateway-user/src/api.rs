//! The model APIs that the gateway meters.

/// A metered API of Azure OpenAI, whichever of the two URL shapes named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `chat/completions`: messages in, a message out, as JSON or as a stream.
    ChatCompletions,
    /// `completions`: a prompt in, its continuation out, as JSON or as a stream.
    Completions,
    /// `embeddings`: texts in, vectors out.
    Embeddings,
    /// `responses`: items in, items out, as JSON or as a stream of named events.
    Responses,
}

impl Api {
    /// Whether its answers have text, which is billed by output tokens.
    #[must_use]
    pub const fn writes_text(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Responses => true,
            Self::Embeddings => false,
        }
    }

    /// Whether its streams carry usage only when the request's `stream_options.include_usage` says so.
    #[must_use]
    pub const fn usage_is_optional(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions => true,
            Self::Embeddings | Self::Responses => false,
        }
    }
}
