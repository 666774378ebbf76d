//! A JSON answer: its usage is found in whatever pieces it arrives, and it is the one that a parser finds.

use std::fmt;

use gateway_user::meter::Usage;
use gateway_user::meter::json::UsageScanner;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) fn run(data: &[u8]) {
    let Some((plan, document)) = crate::split::<4>(data) else { return };
    let mut whole = UsageScanner::new();
    whole.push(document);
    let mut cut = UsageScanner::new();
    crate::pieces(&plan, document).for_each(|piece| cut.push(piece));
    assert_eq!(whole.usage(), cut.usage(), "in pieces of {plan:?}");

    let mut parser = serde_json::Deserializer::from_slice(document);
    let mut found = None;
    let object = Object { found: &mut found, responses: true };
    if object.deserialize(&mut parser).is_ok() && parser.end().is_ok() {
        assert_eq!(whole.usage(), found, "{:?}", String::from_utf8_lossy(document));
    }
}

/// Reads an object as a parser does, for the last usable `usage` in it or in a `response` of it.
struct Object<'a> {
    found: &'a mut Option<Usage>,
    responses: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "usage" => {
                    let value: &RawValue = map.next_value()?;
                    let text = value.get().as_bytes();
                    if text.first() == Some(&b'{') && text.len() <= LONGEST_USAGE {
                        *self.found = Usage::parse(text).or(*self.found);
                    }
                }
                "response" if self.responses => {
                    let value: &RawValue = map.next_value()?;
                    if value.get().starts_with('{') {
                        let mut parser = serde_json::Deserializer::from_str(value.get());
                        let inner = Object { found: &mut *self.found, responses: false };
                        inner.deserialize(&mut parser).map_err(serde::de::Error::custom)?;
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Longer ones are not kept.
const LONGEST_USAGE: usize = 4096;
