//! A request's body: what is said twice is refused, and the edits change what they are meant to change and nothing else.

use std::fmt;

use bytes::Bytes;
use gateway_user::request::Envelope;
use gateway_user::request::envelope::CapKey;
use gateway_user::request::splice::{Edit, splice};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

const CHAT: [CapKey; 2] = [CapKey::MaxCompletionTokens, CapKey::MaxTokens];
const CAPS: [&[CapKey]; 4] = [&CHAT, &[CapKey::MaxTokens], &[], &[CapKey::MaxOutputTokens]];
/// Some of the fields that the gateway acts on.
const KEYS: [&str; 5] = ["model", "stream", "stream_options", "max_tokens", "background"];

pub(crate) fn run(data: &[u8]) {
    let Some(([keys, cap], body)) = crate::split(data) else { return };
    let Some(keys) = CAPS.get(usize::from(keys) % CAPS.len()) else { return };
    let Ok(envelope) = Envelope::parse(body) else { return };
    let Ok(Names(names)) = serde_json::from_slice(body) else { return };
    for key in KEYS {
        let times = names.iter().filter(|name| name.eq_ignore_ascii_case(key)).count();
        assert!(times <= 1, "`{key}` {times} times in {:?}", String::from_utf8_lossy(body));
    }

    let (whole, limit) = (Bytes::copy_from_slice(body), u64::from(cap));
    // Only a stream is asked for its usage.
    let usage = if envelope.stream { Edit::include_usage(&envelope) } else { None };
    let capped = Edit::cap(&envelope, keys, limit);
    let edited = splice(&whole, [usage, capped].into_iter().flatten().collect()).concat();

    // Numbers that no float holds, and nesting that is too deep: the parser that compares gives up, before and after.
    let Ok(before) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return assert!(serde_json::from_slice::<Map<String, Value>>(&edited).is_err());
    };
    let after: Map<String, Value> = serde_json::from_slice(&edited).unwrap_or_default();
    check(&before, after, &envelope, keys, limit);
}

fn check(
    before: &Map<String, Value>,
    mut after: Map<String, Value>,
    envelope: &Envelope<'_>,
    keys: &[CapKey],
    limit: u64,
) {
    let mut before = before.clone();
    if envelope.stream {
        let (asked, options) = (before.remove("stream_options"), after.remove("stream_options"));
        let mut expected = asked.unwrap_or_default().as_object().cloned().unwrap_or_default();
        expected.insert("include_usage".to_owned(), true.into());
        assert_eq!(options, Some(expected.into()));
    }
    let names = keys.iter().map(|key| key.as_str());
    let (caps, caps_before): (Vec<_>, Vec<_>) =
        names.map(|name| (after.remove(name), before.remove(name))).unzip();
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
    let limits: Vec<u64> = caps.iter().filter_map(number).collect();
    let named = caps_before.iter().find_map(number);
    let expected = if keys.is_empty() { vec![] } else { vec![named.map_or(limit, |named| named.min(limit))] };
    assert_eq!(limits, expected, "{caps_before:?} became {caps:?}");
    assert_eq!(before, after);
}

/// The names of an object's fields, as a parser reads them.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;

        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_map(NamesVisitor)
    }
}
