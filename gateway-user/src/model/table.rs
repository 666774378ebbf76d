//! The models that are known, by family and, where a version differs, by dated name.
//!
//! Windows and output maxima are Microsoft's ("Foundry Models sold by Azure", section "Azure OpenAI in Microsoft Foundry
//! models", read in the version of 11 June 2026; for models that it no longer lists, OpenAI's model pages). Encodings are those
//! of tiktoken's `model.py`.

use std::time::Duration;

use super::{Encoding, Generation, ImageRule, LimitField, Model};
use crate::units::Tokens;

/// An answer of a few thousand tokens, written slowly.
const SHORT_SILENCE: Duration = Duration::from_mins(2);
/// An answer of 16,384 tokens and more, at some thirty tokens a second.
const LONG_SILENCE: Duration = Duration::from_mins(10);
/// Reasoning and an answer, at high effort.
pub(super) const REASONING_SILENCE: Duration = Duration::from_mins(15);
/// The `pro` models think for most of an hour (OpenAI, model page of o3-pro: "may take several minutes").
const PRO_SILENCE: Duration = Duration::from_hours(1);

const fn chat(context_window: u64, max_output: u64) -> Model {
    Model {
        encoding: Encoding::O200k,
        images: ImageRule::GPT_4O,
        generation: Generation::Gpt4,
        reasons: false,
        context_window: Some(Tokens::new(context_window)),
        max_output: Some(Tokens::new(max_output)),
        limit_field: LimitField::MaxTokens,
        longest_silence: if max_output > 8192 { LONG_SILENCE } else { SHORT_SILENCE },
    }
}

const fn reasoning(context_window: u64, max_output: u64, images: ImageRule) -> Model {
    Model {
        images,
        reasons: true,
        limit_field: LimitField::MaxCompletionTokens,
        longest_silence: REASONING_SILENCE,
        ..chat(context_window, max_output)
    }
}

const fn pro(model: Model) -> Model {
    Model { longest_silence: PRO_SILENCE, ..model }
}

/// GPT-5 and what came of it.
const fn gpt_5(context_window: u64, max_output: u64, images: ImageRule) -> Model {
    Model { generation: Generation::Gpt5, ..reasoning(context_window, max_output, images) }
}

/// GPT-5.6 and what came of it.
const fn gpt_5_6(context_window: u64, max_output: u64) -> Model {
    Model { generation: Generation::Gpt56, ..gpt_5(context_window, max_output, ImageRule::GPT_5_6) }
}

/// GPT-5 without reasoning.
const fn instant(images: ImageRule) -> Model {
    Model {
        images,
        generation: Generation::Gpt5,
        limit_field: LimitField::MaxCompletionTokens,
        ..chat(128_000, 16_384)
    }
}

/// Models before GPT-4o.
const fn early(context_window: u64, max_output: u64) -> Model {
    Model { encoding: Encoding::Cl100k, ..chat(context_window, max_output) }
}

const fn seeing(images: ImageRule, model: Model) -> Model {
    Model { images, ..model }
}

const GPT_4O_MINI_IMAGES: ImageRule = ImageRule::Tiles { base: 2833, tile: 5667 };

pub(super) const MODELS: [(&str, Model); 67] = [
    ("gpt-35-turbo", early(16_385, 4096)),
    ("gpt-35-turbo-0301", early(4096, 4096)),
    ("gpt-35-turbo-0613", early(4096, 4096)),
    ("gpt-35-turbo-16k", early(16_384, 16_384)),
    ("gpt-35-turbo-instruct", early(4097, 4097)),
    ("gpt-3.5-turbo", early(16_385, 4096)),
    ("gpt-3.5-turbo-0301", early(4096, 4096)),
    ("gpt-3.5-turbo-0613", early(4096, 4096)),
    ("gpt-3.5-turbo-16k", early(16_384, 16_384)),
    ("gpt-3.5-turbo-instruct", early(4097, 4097)),
    ("davinci-002", early(16_384, 16_384)),
    ("babbage-002", early(16_384, 16_384)),
    ("gpt-4", early(8192, 8192)),
    ("gpt-4-32k", early(32_768, 32_768)),
    ("gpt-4-turbo", early(128_000, 4096)),
    ("gpt-4-1106", early(128_000, 4096)),
    ("gpt-4-0125", early(128_000, 4096)),
    ("gpt-4-vision", early(128_000, 4096)),
    ("text-embedding-ada-002", early(8192, 0)),
    ("text-embedding-3-small", early(8192, 0)),
    ("text-embedding-3-large", early(8192, 0)),
    ("gpt-4o", chat(128_000, 16_384)),
    ("gpt-4o-2024-05-13", chat(128_000, 4096)),
    ("gpt-4o-mini", seeing(GPT_4O_MINI_IMAGES, chat(128_000, 16_384))),
    ("gpt-4o-mini-audio-preview", chat(128_000, 16_384)),
    ("chatgpt-4o", chat(128_000, 16_384)),
    ("gpt-audio", chat(128_000, 16_384)),
    ("gpt-audio-mini", chat(128_000, 16_384)),
    ("gpt-audio-1.5", chat(128_000, 16_384)),
    ("gpt-4.1", chat(1_047_576, 32_768)),
    ("gpt-4.1-mini", seeing(ImageRule::small(162), chat(1_047_576, 32_768))),
    ("gpt-4.1-nano", seeing(ImageRule::small(246), chat(1_047_576, 32_768))),
    ("gpt-4.5-preview", chat(128_000, 16_384)),
    ("computer-use-preview", seeing(ImageRule::Tiles { base: 65, tile: 129 }, chat(8192, 1024))),
    ("o1", reasoning(200_000, 100_000, ImageRule::O1)),
    ("o1-preview", reasoning(128_000, 32_768, ImageRule::O1)),
    ("o1-mini", reasoning(128_000, 65_536, ImageRule::O1)),
    ("o1-pro", pro(reasoning(200_000, 100_000, ImageRule::O1))),
    ("o3", reasoning(200_000, 100_000, ImageRule::O1)),
    ("o3-mini", reasoning(200_000, 100_000, ImageRule::O1)),
    ("o3-pro", pro(reasoning(200_000, 100_000, ImageRule::O1))),
    ("o3-deep-research", pro(reasoning(200_000, 100_000, ImageRule::O1))),
    ("o4-mini", reasoning(200_000, 100_000, ImageRule::small(172))),
    ("codex-mini", reasoning(200_000, 100_000, ImageRule::small(172))),
    ("gpt-oss", gpt_5(131_072, 131_072, ImageRule::GPT_4O)),
    ("gpt-5", gpt_5(400_000, 128_000, ImageRule::GPT_5)),
    ("gpt-5-mini", gpt_5(400_000, 128_000, ImageRule::small(162))),
    ("gpt-5-nano", gpt_5(400_000, 128_000, ImageRule::small(246))),
    ("gpt-5-codex-mini", gpt_5(400_000, 128_000, ImageRule::SMALL_UNLISTED)),
    ("gpt-5-pro", pro(gpt_5(400_000, 128_000, ImageRule::GPT_5))),
    ("gpt-5-chat", instant(ImageRule::GPT_5)),
    ("gpt-5.1", gpt_5(400_000, 128_000, ImageRule::GPT_5)),
    ("gpt-5.1-codex-mini", gpt_5(400_000, 128_000, ImageRule::SMALL_UNLISTED)),
    ("gpt-5.1-chat", gpt_5(128_000, 16_384, ImageRule::GPT_5)),
    ("gpt-5.2", gpt_5(400_000, 128_000, ImageRule::SMALL_UNLISTED)),
    ("gpt-5.2-chat", gpt_5(128_000, 16_384, ImageRule::SMALL_UNLISTED)),
    ("gpt-5.3", gpt_5(400_000, 128_000, ImageRule::SMALL_UNLISTED)),
    ("gpt-5.3-chat", gpt_5(128_000, 16_384, ImageRule::SMALL_UNLISTED)),
    ("gpt-5.4", gpt_5(1_050_000, 128_000, ImageRule::GPT_5_4)),
    ("gpt-5.4-pro", pro(gpt_5(1_050_000, 128_000, ImageRule::GPT_5_4))),
    ("gpt-5.4-mini", gpt_5(400_000, 128_000, ImageRule::small(162))),
    ("gpt-5.4-nano", gpt_5(400_000, 128_000, ImageRule::small(246))),
    ("gpt-5.5", gpt_5(1_050_000, 128_000, ImageRule::GPT_5_5)),
    ("gpt-chat-latest", gpt_5(128_000, 16_384, ImageRule::GPT_5_5)),
    ("gpt-5.6", gpt_5_6(1_050_000, 128_000)),
    ("gpt-6", gpt_5_6(1_050_000, 128_000)),
    ("gpt-6.1", gpt_5_6(1_050_000, 128_000)),
];
