//! The cheap upper bound: a body's bytes.

use memchr::memmem;

use crate::units::Tokens;

/// The most tokens that a prompt can have, or nothing when its bytes say nothing about them. Takes one pass.
///
/// Bytes bound tokens, because
/// - a token of text covers at least one byte of it, and a JSON string is at least as long as the text that it stands for;
/// - what the API puts around a text has fewer tokens than the JSON around it has bytes: 3 for a message against `{},`; 1
///   for a name against `"name":`; 7 to 10 for a function against `{"name":""},`; 12 for tools against `"tools":[],`; 3
///   for a parameter and 2 for its colons against `"":{},`; 3 for a choice against `"",`; 1 for a token id against `1,`;
/// - everything else that costs tokens is refused here by name: images, sounds, files, hosted tools, and references to
///   what upstream has stored. In JSON such a name is between quotes that are not escaped, so that a prompt which merely
///   talks of files and images is not taken for one that holds them. An escape that spells a letter or an underscore could
///   hide a name, and no honest encoder writes one: it is refused as well.
#[must_use]
pub fn byte_bound(body: &[u8]) -> Option<Tokens> {
    let hides_a_letter =
        memmem::find_iter(body, b"\\u00").any(|at| matches!(body.get(at + 4), Some(b'5'..=b'7')));
    if hides_a_letter {
        return None;
    }
    let costs_more = memchr::memchr_iter(b'"', body).any(|quote| {
        body.get(quote + 1..)
            .is_some_and(|rest| is_marker(rest) || (rest.starts_with(b"prompt\"") && is_template(rest)))
    });
    (!costs_more).then(|| Tokens::from_bytes(body.len()))
}

/// `after` is what follows a quote.
fn is_marker(after: &[u8]) -> bool {
    after.first().is_some_and(|first| names(*first).iter().any(|name| after.starts_with(name)))
}

/// Keys and types whose cost is not their text, by their first letter: most quotes are told from them by that alone. A
/// name without its closing quote stands for all that begin so.
const fn names(first: u8) -> &'static [&'static [u8]] {
    match first {
        b'a' => &[b"audio\""],
        b'c' => &[b"conversation\"", b"computer", b"code_interpreter"],
        b'd' => &[b"data_sources\"", b"dataSources\""],
        b'e' => &[b"encrypted_content\""],
        b'f' => &[b"file\"", b"file_id\"", b"file_data\"", b"file_url\"", b"file_search"],
        b'i' => &[
            b"image_url\"",
            b"input_image\"",
            b"input_audio\"",
            b"input_file\"",
            b"image_file\"",
            b"item_reference\"",
            b"image_generation",
        ],
        b'l' => &[b"local_shell"],
        b'm' => &[b"mcp"],
        b'p' => &[b"previous_response_id\""],
        b's' => &[b"shell"],
        b't' => &[b"tool_search"],
        b'w' => &[b"web_search"],
        _ => &[],
    }
}

/// Whether `"prompt"` is a stored template, an object, rather than the text to complete.
fn is_template(prompt: &[u8]) -> bool {
    prompt.iter().skip(b"prompt\"".len()).find(|byte| !byte.is_ascii_whitespace() && **byte != b':')
        == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bound_by_its_bytes() {
        for body in [
            r#"{"messages":[{"role":"user","content":"see the file \"input_image\" in audio/, and {\"file\": 1}"}]}"#,
            r#"{"input":"caf\u00e9 \u001b[0m"}"#,
            r#"{"prompt": ["a", "b"]}"#,
            "no json",
            "",
        ] {
            assert_eq!(byte_bound(body.as_bytes()), Some(Tokens::from_bytes(body.len())), "{body}");
        }
    }

    #[test]
    fn every_name_is_found() {
        for name in (0..=u8::MAX).flat_map(names) {
            let body = [b"{\"", *name, b":1}"].concat();
            assert_eq!(byte_bound(&body), None, "{}", String::from_utf8_lossy(&body));
        }
        for kind in [
            "web_search_preview_2025_03_11",
            "file_search",
            "code_interpreter",
            "image_generation",
            "mcp",
            "shell",
            "computer_use_preview",
            "tool_search",
            "web_search_call",
            "mcp_call",
        ] {
            let body = format!(r#"{{"type":"{kind}"}}"#);
            assert_eq!(byte_bound(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn what_costs_more_than_its_text_has_no_bound() {
        for body in [
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
            r#"{"input":[{"type" : "input_image"}]}"#,
            r#"{"input":[{"type":"\u0069nput_image"}]}"#,
            r#"{"input":[{"type":"input\u005fimage"}]}"#,
            r#"{"tools":[{"type":"web_search_preview_2025_03_11"}]}"#,
            r#"{"previous_response_id":"resp_1"}"#,
            "{\"prompt\" :\n{\"id\":\"pmpt_1\"}}",
        ] {
            assert_eq!(byte_bound(body.as_bytes()), None, "{body}");
        }
    }
}
