//! Keys as TOML has them.

/// The key of an entry of the section at `path`.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { quoted(key) } else { format!("{path}.{}", quoted(key)) }
}

/// A key as TOML has it: bare where it can be.
pub(super) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// The key in whose line or value a syntax error at `offset` is, with its section as it is written: what cannot be parsed has
/// no keys yet. Empty where there is none.
pub(crate) fn key_at(text: &str, offset: usize) -> String {
    let (mut section, mut key, mut start) = ("", "", 0);
    for line in text.split_inclusive('\n') {
        if start > offset {
            break;
        }
        start += line.len();
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
            key = "";
        } else if let Some((name, _)) = line.split_once('=').filter(|(name, _)| looks_like_a_key(name)) {
            key = name.trim();
        }
    }
    match (section, key) {
        ("", key) => key.to_owned(),
        (section, "") => section.to_owned(),
        (section, key) => format!("{section}.{key}"),
    }
}

/// Whether what stands before a `=` can be a key, and not a piece of a text or of a list.
fn looks_like_a_key(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' '))
}
