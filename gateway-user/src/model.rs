//! Models: the facts about each one that the gateway acts on, in one table.
//!
//! A deployment's `model` is looked up here once, when the configuration is read. A model that the table does not know is
//! [`Model::UNKNOWN`]: its limits have to be configured, and the rest is taken to be as on the newest models.

mod image;
mod table;

use std::time::Duration;

use crate::names::ModelName;
use crate::units::Tokens;

pub use image::{ImageRule, Limit};

/// One model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// How its text becomes tokens.
    pub encoding: Encoding,
    /// How it turns images into tokens.
    pub images: ImageRule,
    /// Which rules its prompts follow.
    pub generation: Generation,
    /// Whether it spends output tokens on reasoning that never appears on the wire.
    pub reasons: bool,
    /// The most tokens of a prompt and its answer together; `None` where nobody says.
    pub context_window: Option<Tokens>,
    /// The most output tokens of one answer, reasoning included; `None` where nobody says.
    pub max_output: Option<Tokens>,
    /// The field of a chat completion that limits the answer.
    pub limit_field: LimitField,
    /// The longest time until the first byte of an answer that is not streamed.
    pub longest_silence: Duration,
}

/// How a family of models cuts text into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `o200k_base`: GPT-4o and everything since, and every model not known here.
    O200k,
    /// `cl100k_base`: GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
}

/// Models whose prompts are built alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// Everything before GPT-5.
    Gpt4,
    /// GPT-5 up to GPT-5.5, and gpt-oss: prompts in the harmony format (<https://github.com/openai/harmony>).
    Gpt5,
    /// GPT-5.6 and later, and every model not known here: reasoning of earlier turns stays in the prompt unless
    /// `reasoning.context` says otherwise.
    Gpt56,
}

/// The field of a chat completion that limits the answer's tokens (Azure OpenAI, "Reasoning models", "API & feature
/// support").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitField {
    /// `max_tokens`: known to every model before those that reason, in every API version.
    MaxTokens,
    /// `max_completion_tokens`: the only one that models which reason take.
    MaxCompletionTokens,
}

impl Model {
    /// A model that the table does not know.
    pub const UNKNOWN: Self = Self {
        encoding: Encoding::O200k,
        images: ImageRule::GPT_5_6,
        generation: Generation::Gpt56,
        // Output that is not on the wire would be free if this were wrong in the other direction.
        reasons: true,
        context_window: None,
        max_output: None,
        limit_field: LimitField::MaxCompletionTokens,
        longest_silence: table::REASONING_SILENCE,
    };

    /// The model of that name; nothing where the table knows neither it nor its family.
    ///
    /// A name is a family's, or a family's followed by `-` or `_` and more: a date, a size, a variant. The longest family
    /// counts.
    #[must_use]
    pub fn find(name: &ModelName) -> Option<Self> {
        let is_of = |family: &str| {
            name.as_str().split_at_checked(family.len()).is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(family) && (rest.is_empty() || rest.starts_with(['-', '_']))
            })
        };
        table::MODELS
            .iter()
            .filter(|(family, _)| is_of(family))
            .max_by_key(|(family, _)| family.len())
            .map(|(_, model)| *model)
    }

    /// The model of that name, or [`Model::UNKNOWN`].
    #[must_use]
    pub fn of(name: &ModelName) -> Self {
        Self::find(name).unwrap_or(Self::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Model {
        Model::of(&ModelName::new(name).unwrap())
    }

    fn limits(name: &str) -> (u64, u64) {
        let model = model(name);
        (model.context_window.unwrap().get(), model.max_output.unwrap().get())
    }

    #[test]
    fn a_model_has_the_limits_of_its_version_else_of_its_family() {
        for (name, context, output) in [
            ("gpt-4o", 128_000, 16_384),
            ("GPT-4o-2024-11-20", 128_000, 16_384),
            ("gpt-4o-2024-05-13", 128_000, 4096),
            ("gpt-4o-mini", 128_000, 16_384),
            ("gpt-4o-audio-preview", 128_000, 16_384),
            ("gpt-35-turbo", 16_385, 4096),
            ("gpt-35-turbo-0613", 4096, 4096),
            ("gpt-3.5-turbo-16k", 16_384, 16_384),
            ("gpt-4", 8192, 8192),
            ("gpt-4-32k-0613", 32_768, 32_768),
            ("gpt-4-turbo-2024-04-09", 128_000, 4096),
            ("gpt-4-1106-preview", 128_000, 4096),
            ("gpt-4.1-nano-2025-04-14", 1_047_576, 32_768),
            ("o1-preview", 128_000, 32_768),
            ("o3-pro-2025-06-10", 200_000, 100_000),
            ("codex-mini", 200_000, 100_000),
            ("gpt-5-chat", 128_000, 16_384),
            ("gpt-5-mini", 400_000, 128_000),
            ("gpt-5.1-codex-max", 400_000, 128_000),
            ("gpt-5.2-chat-2026-02-10", 128_000, 16_384),
            ("gpt-5.4", 1_050_000, 128_000),
            ("gpt-5.4-mini", 400_000, 128_000),
            ("gpt-5.6-luna", 1_050_000, 128_000),
            ("gpt-5.2_2025-12-11", 400_000, 128_000),
            ("gpt-6.1-sol", 1_050_000, 128_000),
            ("gpt-oss-120b", 131_072, 131_072),
        ] {
            assert_eq!(limits(name), (context, output), "{name}");
        }
    }

    #[test]
    fn a_name_that_only_begins_like_a_family_is_unknown() {
        for name in ["gpt-4.7", "gpt-5.99", "gpt-50", "o10", "grok-4", "model-router", "someone-elses"] {
            assert_eq!(Model::find(&ModelName::new(name).unwrap()), None, "{name}");
            assert!(model(name).reasons, "{name}");
        }
    }

    #[test]
    fn the_families_that_reason_are_known() {
        for name in [
            "o1",
            "o1-mini",
            "o3-pro",
            "o4-mini",
            "codex-mini",
            "gpt-5",
            "gpt-5-nano",
            "gpt-5.1-chat",
            "gpt-oss-20b",
        ] {
            assert!(model(name).reasons, "{name}");
            assert_eq!(model(name).limit_field, LimitField::MaxCompletionTokens, "{name}");
        }
        for name in ["gpt-4o", "gpt-4.1", "gpt-5-chat-latest", "text-embedding-3-small", "gpt-35-turbo"] {
            assert!(!model(name).reasons, "{name}");
        }
    }

    #[test]
    fn a_model_has_the_encoding_of_its_family() {
        for name in [
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4.1-nano",
            "gpt-4.5-preview",
            "gpt-5",
            "gpt-5.2-codex",
            "o1",
            "o3-mini",
            "chatgpt-4o-latest",
            "someone-elses",
        ] {
            assert_eq!(model(name).encoding, Encoding::O200k, "{name}");
        }
        for name in [
            "gpt-4",
            "gpt-4-32k",
            "gpt-4-turbo-2024-04-09",
            "gpt-35-turbo-16k",
            "gpt-3.5-turbo",
            "text-embedding-3-large",
            "text-embedding-ada-002",
        ] {
            assert_eq!(model(name).encoding, Encoding::Cl100k, "{name}");
        }
    }

    #[test]
    fn no_model_writes_more_than_its_window_holds() {
        for (family, model) in &table::MODELS {
            assert!(model.max_output <= model.context_window, "{family}");
            assert!(family.chars().all(|c| !c.is_ascii_uppercase()), "{family}");
        }
    }

    #[test]
    fn no_family_is_listed_twice() {
        let mut families: Vec<_> = table::MODELS.iter().map(|(family, _)| family).collect();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), table::MODELS.len());
    }
}
