//! The models that deployments have, and what each of them refuses.
//!
//! Read from Microsoft's page "Foundry Models sold directly by Azure" (MicrosoftDocs/azure-ai-docs,
//! `articles/foundry/openai/includes/models-azure-direct-openai.md`, as of autumn 2026), and for retired models from its
//! older versions. The gateway has a table of its own: two readings of one page check each other.

/// A model's bounds, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Model {
    /// The most that prompt and answer may be together.
    pub(crate) window: u64,
    /// The most that a prompt may be.
    pub(crate) input: u64,
    /// The most that an answer may be.
    pub(crate) output: u64,
    pub(crate) kind: Kind,
}

/// What tells models apart in how they read a limit of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Older than gpt-4o: `max_completion_tokens` is refused.
    ///
    /// No page of Microsoft's says so. Reports of the refusal (openai-python#1724, litellm#8638, skyvern#1854,
    /// phoenix#7144) are of old API versions, or of deployments of gpt-4 models and do not name the version.
    Old,
    /// Prompt and limit must fit into the window together.
    Plain,
    /// Refuses `max_tokens`, and ends an answer where the window does instead of refusing its limit: what Microsoft's
    /// page says of gpt-5.5, "Responses API token budget".
    Reasoning,
}

impl Model {
    /// The model of that name: its family's, or its version's where that differs.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let find = |name: &str| TABLE.iter().find(|(known, _)| *known == name).map(|&(_, model)| model);
        find(name).or_else(|| find(family(name)?))
    }
}

/// The name without its version, a date in one of two forms: `gpt-4o-2024-08-06`, `gpt-35-turbo-0125`.
fn family(name: &str) -> Option<&str> {
    ["-0000-00-00", "-0000"].into_iter().find_map(|form| {
        let (family, version) = name.split_at_checked(name.len().checked_sub(form.len())?)?;
        let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
        version.bytes().zip(form.bytes()).all(fits).then_some(family)
    })
}

const fn old(window: u64, output: u64) -> Model {
    Model { window, input: window, output, kind: Kind::Old }
}

const fn plain(window: u64, output: u64) -> Model {
    Model { window, input: window, output, kind: Kind::Plain }
}

const fn reasoning(window: u64, input: u64, output: u64) -> Model {
    Model { window, input, output, kind: Kind::Reasoning }
}

const GPT_4O: Model = plain(128_000, 16_384);
const GPT_41: Model = plain(1_047_576, 32_768);
const GPT_4_TURBO: Model = old(128_000, 4_096);
const O_SERIES: Model = reasoning(200_000, 200_000, 100_000);
const GPT_5: Model = reasoning(400_000, 272_000, 128_000);
/// From gpt-5.1-chat on; gpt-5-chat still takes `max_tokens` (meetily#364).
const GPT_51_CHAT: Model = reasoning(128_000, 111_616, 16_384);
const GPT_54: Model = reasoning(1_050_000, 922_000, 128_000);
/// The answer has no tokens.
const EMBEDDING: Model = plain(8_192, 0);

const TABLE: &[(&str, Model)] = &[
    ("gpt-35-turbo", old(16_385, 4_096)),
    ("gpt-35-turbo-0301", old(4_096, 4_096)),
    ("gpt-35-turbo-0613", old(4_096, 4_096)),
    ("gpt-35-turbo-16k", old(16_384, 16_384)),
    ("gpt-35-turbo-instruct", old(4_097, 4_096)),
    ("gpt-3.5-turbo", old(16_385, 4_096)),
    ("gpt-4", old(8_192, 8_192)),
    ("gpt-4-32k", old(32_768, 32_768)),
    ("gpt-4-1106-preview", GPT_4_TURBO),
    ("gpt-4-0125-preview", GPT_4_TURBO),
    ("gpt-4-vision-preview", GPT_4_TURBO),
    ("gpt-4-turbo", GPT_4_TURBO),
    ("gpt-4o", GPT_4O),
    ("gpt-4o-2024-05-13", plain(128_000, 4_096)),
    ("gpt-4o-mini", GPT_4O),
    ("gpt-4o-audio-preview", GPT_4O),
    ("gpt-4o-mini-audio-preview", GPT_4O),
    ("gpt-audio", GPT_4O),
    ("gpt-audio-mini", GPT_4O),
    ("gpt-audio-1.5", GPT_4O),
    ("gpt-4.1", GPT_41),
    ("gpt-4.1-mini", GPT_41),
    ("gpt-4.1-nano", GPT_41),
    ("gpt-4.5-preview", GPT_4O),
    ("computer-use-preview", plain(8_192, 1_024)),
    ("gpt-oss-20b", plain(131_072, 131_072)),
    ("gpt-oss-120b", plain(131_072, 131_072)),
    ("o1", O_SERIES),
    ("o1-mini", reasoning(128_000, 128_000, 65_536)),
    ("o1-preview", reasoning(128_000, 128_000, 32_768)),
    ("o3", O_SERIES),
    ("o3-mini", O_SERIES),
    ("o3-pro", O_SERIES),
    ("o4-mini", O_SERIES),
    ("codex-mini", O_SERIES),
    ("gpt-5", GPT_5),
    ("gpt-5-mini", GPT_5),
    ("gpt-5-nano", GPT_5),
    ("gpt-5-pro", GPT_5),
    ("gpt-5-codex", GPT_5),
    ("gpt-5-chat", GPT_4O),
    ("gpt-5.1", GPT_5),
    ("gpt-5.1-codex", GPT_5),
    ("gpt-5.1-codex-mini", GPT_5),
    ("gpt-5.1-codex-max", GPT_5),
    ("gpt-5.1-chat", GPT_51_CHAT),
    ("gpt-5.2", GPT_5),
    ("gpt-5.2-codex", GPT_5),
    ("gpt-5.2-chat", GPT_51_CHAT),
    ("gpt-5.3-codex", GPT_5),
    ("gpt-5.3-chat", GPT_51_CHAT),
    ("gpt-chat-latest", GPT_51_CHAT),
    ("gpt-5.4-mini", GPT_5),
    ("gpt-5.4-nano", GPT_5),
    ("gpt-5.4", GPT_54),
    ("gpt-5.4-pro", GPT_54),
    ("gpt-5.5", GPT_54),
    ("gpt-5.6-sol", GPT_54),
    ("gpt-5.6-terra", GPT_54),
    ("gpt-5.6-luna", GPT_54),
    ("gpt-6-astra", GPT_54),
    ("gpt-6-luna", GPT_54),
    ("gpt-6-sol", GPT_54),
    ("gpt-6.1-sol", GPT_54),
    ("text-embedding-3-small", EMBEDDING),
    ("text-embedding-3-large", EMBEDDING),
    ("text-embedding-ada-002", EMBEDDING),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_familys_unless_it_differs() {
        assert_eq!(Model::named("gpt-4o-2024-08-06"), Some(GPT_4O));
        assert_eq!(Model::named("gpt-4o-2024-05-13"), Some(plain(128_000, 4_096)));
        assert_eq!(Model::named("gpt-35-turbo-0125"), Some(old(16_385, 4_096)));
        assert_eq!(Model::named("gpt-35-turbo-0613"), Some(old(4_096, 4_096)));
        assert_eq!(Model::named("gpt-4-turbo-2024-04-09"), Some(GPT_4_TURBO));
        assert_eq!(Model::named("o3-mini-2025-01-31"), Some(O_SERIES));
    }

    #[test]
    fn another_name_is_no_model() {
        for name in ["chat", "", "gpt-4o-", "gpt-4o-latest", "gpt-4o-2024-8-6", "\u{e9}-2024-08-06"] {
            assert_eq!(Model::named(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_is_in_the_table_twice() {
        let mut names: Vec<_> = TABLE.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
