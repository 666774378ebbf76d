//! A walk over JSON that copies nothing: each value is looked at only as far as its count needs.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The whole of a body, when it is one JSON value in UTF-8. Nesting costs nothing here: values are skipped, not entered.
pub(super) fn document(body: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(body).ok()
}

/// A string's characters; borrowed when none is escaped. Nothing for other values and for half surrogate pairs.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    // An attempt at anything else would make an error, which is slow.
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|Text(text)| text)
}

/// Calls `each` with every element of an array; false for what is no array.
pub(super) fn elements<'a>(value: &'a RawValue, each: impl FnMut(&'a RawValue)) -> bool {
    serde_json::Deserializer::from_str(value.get()).deserialize_seq(Elements(each)).is_ok()
}

/// Calls `each` with every key and value of an object, repeated keys included; false for what is no object, and, after
/// the entries before it, where a key is no text.
pub(super) fn entries<'a>(value: &'a RawValue, each: impl FnMut(&str, &'a RawValue)) -> bool {
    serde_json::Deserializer::from_str(value.get()).deserialize_map(Entries(each)).is_ok()
}

/// Whether a value is an object.
pub(super) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Whether a value is an array.
pub(super) fn is_array(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

/// Whether a value is an array without elements.
pub(super) fn is_empty_array(value: &RawValue) -> bool {
    value.get().strip_prefix('[').is_some_and(|rest| rest.trim_ascii() == "]")
}

/// A value as it is written, without the white space between its parts, in pieces.
pub(super) fn compact(value: &RawValue, mut each: impl FnMut(&str)) {
    let text = value.get();
    // White space in strings is escaped, but for the blank.
    if !text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return each(text);
    }
    let mut piece = String::with_capacity(text.len().min(PIECE_BYTES));
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        push(&mut piece, c, &mut each);
    }
    each(&piece);
}

/// A value as it is written, with characters beyond ASCII escaped, in pieces.
pub(super) fn ascii(value: &RawValue, mut each: impl FnMut(&str)) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut piece = String::with_capacity(value.get().len().min(PIECE_BYTES));
    let mut units = [0; 2];
    for c in value.get().chars() {
        if c.is_ascii() {
            push(&mut piece, c, &mut each);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            piece.push_str("\\u");
            piece.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 0xf)]));
        }
    }
    each(&piece);
}

/// Adds a character, and passes the piece on where it is long and ends with a word.
fn push(piece: &mut String, c: char, each: &mut impl FnMut(&str)) {
    if piece.len() >= PIECE_BYTES && (c == ' ' || piece.len() >= 2 * PIECE_BYTES) {
        each(piece);
        piece.clear();
    }
    piece.push(c);
}

/// How much text is held at once.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

struct Entries<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Entries<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some((Text(key), value)) = entries.next_entry::<Text<'de>, &'de RawValue>()? {
            (self.0)(&key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(json: &str, write: impl Fn(&RawValue, &mut dyn FnMut(&str))) -> String {
        let mut whole = String::new();
        write(document(json.as_bytes()).unwrap(), &mut |piece| whole.push_str(piece));
        whole
    }

    #[test]
    fn white_space_is_dropped_outside_strings_alone() {
        let json = "{ \"a b\" : [ 1,\n\t\"c \\\" \\\\\", {} ] }";
        assert_eq!(written(json, |value, each| compact(value, each)), r#"{"a b":[1,"c \" \\",{}]}"#);
    }

    #[test]
    fn what_is_beyond_ascii_is_escaped() {
        assert_eq!(
            written(r#""aé漢👩 \n""#, |value, each| ascii(value, each)),
            r#""a\u00e9\u6f22\ud83d\udc69 \n""#
        );
    }

    proptest! {
        #[test]
        fn both_say_the_same_as_was_written(text in any::<String>(), times in 1_usize..400) {
            let value = serde_json::json!({"a": text.repeat(times), "b": [1, 2.5, null, {"c": text}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(written(&pretty, |value, each| compact(value, each)), value.to_string());
            let escaped = written(&pretty, |value, each| ascii(value, each));
            prop_assert!(escaped.is_ascii());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
