//! How much structure a body may have. Text costs little to read however long it is; a value costs more than its bytes say.

use memchr::memchr2;

/// Objects and lists within each other. What is nested deepest in honest requests are the schemas of tools, about ten deep.
const MOST_DEPTH: usize = 128;
/// Fields of all objects together. A message has three or four, and a model's window has room for some ten thousand of them.
const MOST_FIELDS: usize = 250_000;
/// Fields of objects and elements of lists together. Lists of token ids are the longest: Azure takes 300,000 for embeddings.
const MOST_VALUES: usize = 1_000_000;

/// A body with more structure than any program sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Too much nesting.
    #[error("the body has objects and lists nested more than {MOST_DEPTH} deep")]
    Depth,
    /// Too many fields.
    #[error("the body's objects have more than {MOST_FIELDS} fields")]
    Fields,
    /// Too many values.
    #[error("the body has more than {MOST_VALUES} fields and elements of lists")]
    Values,
}

/// Checks the bounds, in one pass. What is no JSON may pass.
pub(super) fn check(body: &[u8]) -> Result<(), ShapeError> {
    let (mut depth, mut fields, mut values) = (0_usize, 0_usize, 0_usize);
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return Err(ShapeError::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' => {
                fields += 1;
                if fields > MOST_FIELDS {
                    return Err(ShapeError::Fields);
                }
            }
            b',' => {
                // There is one fewer than values, in each object and list.
                values += 1;
                if values >= MOST_VALUES {
                    return Err(ShapeError::Values);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Goes on behind the string that has just begun.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    loop {
        let rest = bytes.as_slice();
        let Some(at) = memchr2(b'"', b'\\', rest) else {
            *bytes = [].iter();
            return;
        };
        let is_end = rest.get(at) == Some(&b'"');
        // An escape takes the next byte with it.
        let taken = if is_end { at + 1 } else { at + 2 };
        *bytes = rest.get(taken..).unwrap_or_default().iter();
        if is_end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2))
    }

    #[test]
    fn what_has_too_much_structure_is_refused_and_says_what_of() {
        let fields = |count: usize| format!("[{}{{}}]", r#"{"a":1},"#.repeat(count));
        let elements = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        for (body, expected) in [
            (nested(128), Ok(())),
            (nested(130), Err(ShapeError::Depth)),
            (fields(MOST_FIELDS), Ok(())),
            (fields(MOST_FIELDS + 1), Err(ShapeError::Fields)),
            (elements(MOST_VALUES), Ok(())),
            (elements(MOST_VALUES + 1), Err(ShapeError::Values)),
        ] {
            assert_eq!(check(body.as_bytes()), expected, "{expected:?}");
        }
        assert!(ShapeError::Depth.to_string().contains("128"));
    }

    #[test]
    fn text_has_no_structure() {
        let text = serde_json::json!({"a": r#"[[{"\"":1,"#.repeat(200_000)}).to_string();
        assert_eq!(check(text.as_bytes()), Ok(()));
    }

    #[test]
    fn what_is_no_json_comes_to_an_end() {
        for body in [&b""[..], b"\"", b"\"\\", b"\"abc\\\"", b"]]]}}}", b"{\"a", b"\\"] {
            assert_eq!(check(body), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn the_depth_of_json_is_its_nesting(depth in 0_usize..200, text in any::<String>()) {
            let mut value = serde_json::Value::String(text.clone());
            for level in 0..depth {
                value = if level % 2 == 0 { serde_json::json!([value]) } else { serde_json::json!({ text.clone(): value }) };
            }
            let expected = if depth > MOST_DEPTH { Err(ShapeError::Depth) } else { Ok(()) };
            prop_assert_eq!(check(value.to_string().as_bytes()), expected);
        }
    }
}
