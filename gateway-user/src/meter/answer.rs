//! An answer in one piece whose usage is too small to be right: how much text it has.

use std::collections::VecDeque;

use bytes::Bytes;

use super::usage::Usage;
use super::wire::{Delta, Whole};
use crate::model::Encoding;
use crate::tokens::OutputCounter;
use crate::units::Tokens;

/// Whether an answer of so many bytes may have as few output tokens as its usage says, so that its text need not be counted.
#[must_use]
pub const fn accounts_for(usage: &Usage, bytes: usize) -> bool {
    usage.accounts_for((bytes as u64).saturating_sub(FRAME))
}

/// The output tokens in the text of an answer, or zero where upstream's count fits the text.
///
/// Only a text with many more bytes than its usage accounts for is tokenised. An answer that is no JSON counts as zero: this
/// is for doubting a count, never for making one.
#[must_use]
pub fn unaccounted(parts: &VecDeque<Bytes>, encoding: Encoding, usage: &Usage) -> Tokens {
    let document = parts.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat();
    let Ok(answer) = serde_json::from_slice::<Whole<'_>>(&document) else { return Tokens::ZERO };
    let mut output = OutputCounter::new(encoding);
    for choice in &answer.choices {
        let written = choice.message.iter().flat_map(Delta::texts).chain(&choice.text);
        written.for_each(|text| output.push(&text.0));
    }
    // Reasoning is told in other words than it was billed for.
    let is_answer = |kind: &str| matches!(kind, "message" | "function_call" | "custom_tool_call");
    let items = answer.output.iter().filter(|item| item.kind.as_ref().is_some_and(|kind| is_answer(&kind.0)));
    for item in items {
        let parts = item.content.iter().flatten().flat_map(|part| [&part.text, &part.refusal]);
        let written = parts.chain([&item.arguments, &item.input]).flatten();
        written.for_each(|text| output.push(&text.0));
    }
    if usage.accounts_for(output.bytes()) { Tokens::ZERO } else { output.total() }
}

/// Bytes of an answer without any text: ids, what Azure's content filter says, usage.
const FRAME: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(answer: &str, output: u64) -> u64 {
        let usage = Usage { output: Tokens::new(output), ..Usage::default() };
        // In pieces, as it comes.
        let (start, end) = answer.split_at(answer.len() / 2);
        let parts = [start, end].map(|part| Bytes::copy_from_slice(part.as_bytes())).into();
        unaccounted(&parts, Encoding::O200k, &usage).get()
    }

    #[test]
    fn text_counts_where_usage_does_not_account_for_it() {
        let text = "word ".repeat(2000);
        for answer in [
            format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}]}}"#),
            format!(r#"{{"choices":[{{"text":"{text}"}}]}}"#),
            format!(
                r#"{{"choices":[{{"message":{{"content":null,"tool_calls":[{{"function":{{"name":"f","arguments":"{text}"}}}}]}}}}]}}"#
            ),
            format!(
                r#"{{"output":[{{"type":"message","content":[{{"type":"output_text","text":"{text}"}}]}}]}}"#
            ),
            format!(r#"{{"output":[{{"type":"function_call","name":"f","arguments":"{text}"}}]}}"#),
        ] {
            assert!((2000..2010).contains(&text_of(&answer, 0)), "{answer}");
            assert_eq!(text_of(&answer, 1900), 0, "{answer}");
        }
    }

    #[test]
    fn what_is_no_text_of_the_answers_does_not_count() {
        let padding = "word ".repeat(2000);
        for answer in [
            format!(r#"{{"output":[{{"type":"reasoning","summary":[{{"text":"{padding}"}}]}}]}}"#),
            format!(r#"{{"choices":[{{"message":{{"content":"hi"}},"logprobs":["{padding}"]}}]}}"#),
            format!(r#"{{"data":[{{"embedding":"{padding}"}}]}}"#),
            padding,
        ] {
            assert_eq!(text_of(&answer, 0), 0, "{answer}");
        }
    }
}
