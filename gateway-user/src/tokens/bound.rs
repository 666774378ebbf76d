//! The cheap upper bound: a body's bytes.

use memchr::memmem;

use crate::units::Tokens;

/// The most tokens that a prompt can have, or nothing when its bytes say nothing about them. Takes one pass.
///
/// Bytes bound tokens, because
/// - a token of text covers at least one byte of it, and a JSON string is at least as long as the text that it stands for;
/// - what the API puts around a text has fewer tokens than the JSON around it has bytes: 3 for a message against `{},`; 1
///   for a name against `"name":`; 7 for a function against `{"name":""},`; 6 for a parameter against `"":{},`; 3 for a
///   choice against `"",`; 9 for a call's result against `"tool_call_id":"",`; 1 for a token id against `1,`;
/// - where it has more, that is added: for lists of tools, for custom tools, and for the results of several calls at once,
///   which are shown as JSON in ASCII;
/// - everything else that costs tokens is refused here by name: images, sounds, files, hosted tools, schemas that stand in
///   more than one place, and references to what upstream has stored. In JSON such a name is between quotes that are not
///   escaped, so that a prompt which merely talks of files and images is not taken for one that holds them. An escape that
///   spells a letter or an underscore could hide a name, and no honest encoder writes one: it is refused as well.
#[must_use]
pub fn byte_bound(body: &[u8]) -> Option<Tokens> {
    let hides_a_letter =
        memmem::find_iter(body, b"\\u00").any(|at| matches!(body.get(at + 4), Some(b'5'..=b'7')));
    if hides_a_letter {
        return None;
    }
    let mut more = 0;
    let mut has_calls = false;
    for quote in memchr::memchr_iter(b'"', body) {
        let Some((first, _)) = body.get(quote + 1..).and_then(<[u8]>::split_first) else { break };
        // Most quotes begin no name, but end one or a text.
        if !BEGINS_A_NAME[usize::from(*first)] {
            continue;
        }
        let rest = body.get(quote + 1..).unwrap_or_default();
        if is_marker(rest)
            || (rest.starts_with(b"prompt\"") && is_key_of(rest, b"prompt\"", b'{'))
            || (rest.starts_with(b"reasoning\"") && !is_key(rest, b"reasoning\""))
        {
            return None;
        }
        has_calls |= rest.starts_with(b"tool_calls\"");
        more += surcharge(*first, rest);
    }
    if has_calls {
        more += ESCAPES_FOR_A_BYTE * beyond_ascii(body);
    }
    Some(Tokens::from_bytes(body.len().saturating_add(more)))
}

/// How many bytes are beyond ASCII. Sums that fit a byte are what a processor does many of at once.
fn beyond_ascii(body: &[u8]) -> usize {
    let of = |chunk: &[u8]| chunk.iter().map(|byte| byte >> 7).sum::<u8>();
    body.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(of(chunk))).sum()
}

/// Whether a body may hold a file, which takes longer to read than its bytes say.
#[must_use]
pub fn may_hold_file(body: &[u8]) -> bool {
    // A name may be written with escapes.
    memmem::find(body, b"file_data").is_some() || memmem::find(body, b"\\u00").is_some()
}

/// `after` is what follows a quote.
fn is_marker(after: &[u8]) -> bool {
    after.first().is_some_and(|first| names(*first).iter().any(|name| after.starts_with(name)))
}

/// What the API adds for a key or type, beyond the bytes that it is written in.
fn surcharge(first: u8, after: &[u8]) -> usize {
    let surcharges: &[(&[u8], usize)] = match first {
        b't' => &[(b"tools\"", LIST_OF_TOOLS)],
        b'f' => &[(b"functions\"", LIST_OF_TOOLS), (b"function_call\"", CALLED_NAME)],
        b'c' => &[(b"custom\"", CUSTOM_TOOL), (b"custom_tool_call\"", CALLED_NAME)],
        _ => &[],
    };
    surcharges.iter().find(|(name, _)| after.starts_with(name)).map_or(0, |(_, tokens)| *tokens)
}

/// The first letters of all names that are looked for.
const BEGINS_A_NAME: [bool; 256] = {
    let mut begins = [false; 256];
    let mut first = 0_u8;
    loop {
        begins[first as usize] =
            !names(first).is_empty() || matches!(first, b'c' | b'f' | b'p' | b'r' | b't');
        if first == u8::MAX {
            break begins;
        }
        first += 1;
    }
};

/// Keys and types whose cost is not their text, by their first letter: most quotes are told from them by that alone. A
/// name without its closing quote stands for all that begin so.
const fn names(first: u8) -> &'static [&'static [u8]] {
    match first {
        b'$' => &[b"$ref\""],
        b'a' => &[b"audio\"", b"apply_patch\""],
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
        b'p' => &[b"previous_response_id\"", b"pro\""],
        b's' => &[b"shell"],
        b't' => &[b"tool_search"],
        b'w' => &[b"web_search"],
        _ => &[],
    }
}

/// Whether `name` is a key, rather than a value.
fn is_key(after: &[u8], name: &[u8]) -> bool {
    after.iter().skip(name.len()).find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Whether `name` is the key of a value that begins with `first`: `"prompt"` is a text to complete, or a stored template, an
/// object.
fn is_key_of(after: &[u8], name: &[u8], first: u8) -> bool {
    after.iter().skip(name.len()).find(|byte| !byte.is_ascii_whitespace() && **byte != b':') == Some(&first)
}

/// What surrounds a list of tools, in a message of its own; see `tools`.
const LIST_OF_TOOLS: usize = 128;
/// What says how to call a custom tool; see `tools`.
const CUSTOM_TOOL: usize = 32;
/// The name of a function, a second time above its result.
const CALLED_NAME: usize = 32;
/// Six for a character of two bytes or three, twelve for one of four: at most twice its bytes beyond them.
const ESCAPES_FOR_A_BYTE: usize = 2;

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
    fn what_surrounds_tools_and_calls_is_added() {
        for (body, more) in [
            (r#"{"tools":[{"type":"function","name":"f"}]}"#, 128),
            (r#"{"functions":[],"tools":[{"type":"custom"}]}"#, 288),
            (r#"{"input":[{"type":"function_call","name":"f"}]}"#, 32),
            (r#"{"messages":[{"tool_calls":[]},{"role":"tool","content":"é漢👩"}]}"#, 18),
            (r#"{"messages":[{"role":"tool","content":"é漢👩"}]}"#, 0),
            (r#"{"reasoning":{"effort":"high"}}"#, 0),
        ] {
            assert_eq!(byte_bound(body.as_bytes()), Some(Tokens::from_bytes(body.len() + more)), "{body}");
        }
    }

    #[test]
    fn bytes_beyond_ascii_are_all_counted() {
        for often in [0, 1, 127, 128, 1000] {
            assert_eq!(beyond_ascii("é漢a👩".repeat(often).as_bytes()), 9 * often);
        }
    }

    #[test]
    fn a_file_is_found_whatever_its_key_is_written_like() {
        assert!(may_hold_file(br#"{"file_data":"JVBERi0"}"#));
        assert!(may_hold_file(br#"{"file\u005fdata":"JVBERi0"}"#));
        assert!(!may_hold_file(br#"{"file_id":"file-1"}"#));
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
            r#"{"input":[{"type":"reasoning","id":"rs_1"}]}"#,
            r#"{"reasoning" : {"mode":"pro"}}"#,
            r##"{"items":{"$ref":"#/$defs/A"}}"##,
            "{\"prompt\" :\n{\"id\":\"pmpt_1\"}}",
        ] {
            assert_eq!(byte_bound(body.as_bytes()), None, "{body}");
        }
    }
}
