//! Texts that examples and templates have in place of real ones, such as `REPLACE-ME`.

use toml::de::DeValue;

use super::key::joined;

/// Adds the keys of all placeholders in a value to `found`; `name` is the value's own key.
pub(super) fn find(value: &DeValue<'_>, name: String, found: &mut Vec<String>) {
    if let Some(table) = value.as_table() {
        for (key, value) in table {
            find(value.get_ref(), joined(&name, key.get_ref()), found);
        }
    } else if let Some(list) = value.as_array() {
        for (index, value) in list.iter().enumerate() {
            find(value.get_ref(), format!("{name}[{index}]"), found);
        }
    } else if value.as_str().is_some_and(is_placeholder) {
        found.push(name);
    }
}

fn is_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace(['_', ' '], "-");
    let bracketed = text.split_once('<').is_some_and(|(_, rest)| rest.contains('>'));
    bracketed || PLACEHOLDERS.iter().any(|placeholder| holds_word(&text, placeholder))
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at + word.len()..));
        !is_in_word(before.and_then(|before| before.chars().next_back()))
            && !is_in_word(after.and_then(|after| after.chars().next()))
    })
}

/// In lower case, with `-` between words.
const PLACEHOLDERS: [&str; 7] = [
    "replace-me",
    "replaceme",
    "change-me",
    "changeme",
    "your-resource",
    "your-tenant",
    "00000000-0000-0000-0000-000000000000",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_told_from_names() {
        for placeholder in [
            "https://REPLACE-ME.openai.azure.com",
            "replace_me",
            "Change me",
            "https://<resource>.openai.azure.com",
            "https://your-resource.openai.azure.com",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(is_placeholder(placeholder), "{placeholder}");
        }
        for real in ["https://contoso.openai.azure.com", "tls/tls.crt", "a < b", "exchange-mesh", "auto"] {
            assert!(!is_placeholder(real), "{real}");
        }
    }
}
