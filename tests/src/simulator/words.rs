//! What the simulated model says, token by token.
//!
//! Every word is exactly one token, alone and in a row, in `o200k_base` and in `cl100k_base`: so the tokens on the wire
//! are known without counting, and a meter that counts them can be held to it.

/// An answer's text, cut at its tokens.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// That many words.
    Words(u64),
    /// These tokens, in order.
    Tokens(Vec<String>),
}

impl Text {
    /// The arguments of a tool call: a JSON object around `words` words.
    pub(crate) fn arguments(words: u64) -> Self {
        let text = format!(r#"{{"words":"{}"}}"#, Self::Words(words).between(0, words));
        let encoder = tiktoken_rs::o200k_base_singleton();
        // Each token of ASCII text is text; were it not, the text as one piece is still what is sent.
        Self::Tokens(encoder.split_by_token_ordinary(&text).unwrap_or_else(|_| vec![text]))
    }

    /// The number of tokens.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Words(words) => *words,
            Self::Tokens(tokens) => tokens.len() as u64,
        }
    }

    /// The text of the tokens from the one at `start` to before the one at `end`.
    pub(crate) fn between(&self, start: u64, end: u64) -> String {
        (start..end.min(self.len())).map(|at| self.token(at)).collect()
    }

    fn token(&self, at: u64) -> &str {
        match self {
            Self::Words(_) if at == 0 => FIRST_WORD,
            Self::Words(_) => cyclic(&WORDS, at),
            Self::Tokens(tokens) => cyclic(tokens, at),
        }
    }
}

fn cyclic<T: AsRef<str>>(texts: &[T], at: u64) -> &str {
    let index = usize::try_from(at).unwrap_or(0) % texts.len().max(1);
    texts.get(index).map_or("", AsRef::as_ref)
}

const FIRST_WORD: &str = "zero";
const WORDS: [&str; 10] =
    [" zero", " one", " two", " three", " four", " five", " six", " seven", " eight", " nine"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_one_token_in_both_encodings() {
        for words in [1, 2, 11, 500] {
            let text = Text::Words(words).between(0, words);
            let expected = usize::try_from(words).unwrap();
            assert_eq!(tiktoken_rs::o200k_base_singleton().count_ordinary(&text), expected);
            assert_eq!(tiktoken_rs::cl100k_base_singleton().count_ordinary(&text), expected);
        }
    }

    #[test]
    fn arguments_are_json_and_as_many_tokens_as_they_say() {
        let arguments = Text::arguments(12);
        let text = arguments.between(0, arguments.len());
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(parsed["words"].as_str().unwrap().starts_with("zero one"));
        assert_eq!(tiktoken_rs::o200k_base_singleton().count_ordinary(&text) as u64, arguments.len());
    }
}
