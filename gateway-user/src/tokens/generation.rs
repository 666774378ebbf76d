//! Which rules for prompts a model follows, by its generation.

use super::encoding::begins;
use crate::names::ModelName;

/// Models whose prompts are built alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Generation {
    /// Everything before GPT-5.
    Gpt4,
    /// GPT-5 up to GPT-5.5, and gpt-oss: prompts in the harmony format (<https://github.com/openai/harmony>).
    Gpt5,
    /// GPT-5.6 and later, and every model not known here: reasoning of earlier turns stays in the prompt unless
    /// `reasoning.context` says otherwise.
    Gpt56,
}

impl Generation {
    pub(super) fn of(model: &ModelName) -> Self {
        const BEFORE_GPT_5: [&str; 10] = [
            "gpt-3",
            "gpt-4",
            "chatgpt-4",
            "o1",
            "o3",
            "o4",
            "text-embedding",
            "davinci",
            "babbage",
            "computer-use",
        ];
        const GPT_5: [&str; 7] = ["gpt-5-", "gpt-5.1", "gpt-5.2", "gpt-5.3", "gpt-5.4", "gpt-5.5", "gpt-oss"];
        if BEFORE_GPT_5.iter().any(|prefix| begins(model, prefix)) {
            Self::Gpt4
        } else if model.as_str().eq_ignore_ascii_case("gpt-5")
            || GPT_5.iter().any(|prefix| begins(model, prefix))
        {
            Self::Gpt5
        } else {
            Self::Gpt56
        }
    }
}
