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
