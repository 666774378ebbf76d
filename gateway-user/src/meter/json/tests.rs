use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::units::Tokens;

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Usage> {
    let mut scanner = UsageScanner::new();
    for piece in pieces {
        scanner.push(piece);
        assert!(scanner.capture.bytes.capacity() <= 2 * USAGE_BYTES);
    }
    scanner.usage()
}

fn scan_whole(document: &str) -> Option<Usage> {
    let whole = scan([document.as_bytes()]);
    assert_eq!(scan(document.as_bytes().chunks(1)), whole, "{document}");
    whole
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input: Tokens::new(input), output: Tokens::new(output), ..Usage::default() }
}

#[test]
fn an_answer_s_usage_is_found() {
    let chat = json!({
        "id": "chatcmpl-1", "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "\"usage\":{\"prompt_tokens\":9}"}}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}},
        "system_fingerprint": null,
    });
    assert_eq!(scan_whole(&chat.to_string()), Some(usage(19, 10)));
    assert_eq!(scan_whole(&serde_json::to_string_pretty(&chat).unwrap()), Some(usage(19, 10)));
    let embeddings = json!({
        "object": "list", "data": [{"embedding": [0.1, -0.2], "index": 0}], "usage": {"prompt_tokens": 8},
    });
    assert_eq!(scan_whole(&embeddings.to_string()), Some(usage(8, 0)));
}

#[test]
fn the_last_event_of_a_responses_stream_has_it_one_level_down() {
    let event = json!({
        "type": "response.completed",
        "response": {"id": "resp_1", "usage": {"input_tokens": 36, "output_tokens": 87}, "output": []},
    });
    assert_eq!(scan_whole(&event.to_string()), Some(usage(36, 87)));
}

#[test]
fn usage_anywhere_else_is_not_it() {
    for document in [
        r#"{"choices":[{"usage":{"prompt_tokens":1}}]}"#,
        r#"{"message":{"usage":{"prompt_tokens":1}}}"#,
        r#"{"response":{"response":{"usage":{"prompt_tokens":1}}}}"#,
        r#"{"response":{"output":[{"usage":{"prompt_tokens":1}}]}}"#,
        r#"{"response":[{"usage":{"prompt_tokens":1}}]}"#,
        r#"[{"usage":{"prompt_tokens":1}}]"#,
        r#"{"a":"usage","b":{"prompt_tokens":1}}"#,
        r#"{"response":1,"b":{"usage":{"prompt_tokens":1}}}"#,
        r#"{"usage":null,"b":{"prompt_tokens":1}}"#,
        r#"{"usage":[{"prompt_tokens":1}]}"#,
        r#"{"usages":{"prompt_tokens":1}}"#,
        r#"{"usag":{"prompt_tokens":1}}"#,
        r#"{"us\nage":{"prompt_tokens":1}}"#,
        r#"{"us\u0161ge":{"prompt_tokens":1}}"#,
        r#""usage""#,
        "",
    ] {
        assert_eq!(scan_whole(document), None, "{document}");
    }
}

#[test]
fn a_key_is_what_it_spells() {
    assert_eq!(scan_whole(r#"{"us\u0061ge":{"prompt_tokens":1}}"#), Some(usage(1, 0)));
    assert_eq!(scan_whole(r#"{"\u0075\u0073\u0061\u0067\u0065" : {"prompt_tokens":1}}"#), Some(usage(1, 0)));
    assert_eq!(
        scan_whole(r#"{"respons\u0065":{"a":{},"u\u0073age":{"prompt_tokens":1}}}"#),
        Some(usage(1, 0))
    );
    assert_eq!(scan_whole(r#"{"a\"":"\\","usage":{"prompt_tokens":1}}"#), Some(usage(1, 0)));
}

#[test]
fn after_response_comes_the_rest_of_the_top_level() {
    assert_eq!(scan_whole(r#"{"response":{"a":1},"usage":{"prompt_tokens":1}}"#), Some(usage(1, 0)));
    assert_eq!(scan_whole(r#"{"response":{},"usage":{"prompt_tokens":1}}"#), Some(usage(1, 0)));
    assert_eq!(
        scan_whole(r#"{"response":{"usage":{"prompt_tokens":1}},"a":{"usage":{"prompt_tokens":2}}}"#),
        Some(usage(1, 0))
    );
}

#[test]
fn the_last_usable_one_counts() {
    let document =
        r#"{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2},"usage":{"prompt_tokens":-3}}"#;
    assert_eq!(scan_whole(document), Some(usage(2, 0)));
}

#[test]
fn a_document_cut_short_has_what_was_whole() {
    assert_eq!(scan_whole(r#"{"usage":{"prompt_tokens":1},"cho"#), Some(usage(1, 0)));
    assert_eq!(scan_whole(r#"{"usage":{"prompt_tokens":1"#), None);
}

#[test]
fn an_object_beyond_its_bound_is_let_go() {
    let fits = format!(r#"{{"usage":{{"prompt_tokens":1,"a":"{}"}}}}"#, "x".repeat(4000));
    assert_eq!(scan_whole(&fits), Some(usage(1, 0)));
    let large = format!(r#"{{"usage":{{"prompt_tokens":1,"a":"{}"}}}}"#, "x".repeat(5000));
    assert_eq!(scan_whole(&large), None);
}

#[test]
fn size_and_depth_of_the_rest_do_not_matter() {
    let deep =
        format!(r#"{{"a":{}{},"usage":{{"prompt_tokens":1}}}}"#, "[".repeat(500_000), "]".repeat(500_000));
    assert_eq!(scan_whole(&deep), Some(usage(1, 0)));
    let long = format!(
        r#"{{"{}":"{}","usage":{{"prompt_tokens":1}}}}"#,
        "k".repeat(500_000),
        r"\u0022".repeat(100_000)
    );
    assert_eq!(scan_whole(&long), Some(usage(1, 0)));
}

/// What the scanner is to find, from the parsed document.
fn expected(document: &Value) -> Option<Usage> {
    let parse =
        |value: &Value| value.is_object().then(|| Usage::parse(value.to_string().as_bytes())).flatten();
    document.as_object()?.iter().fold(None, |found, (key, value)| {
        let here = match key.as_str() {
            "usage" => parse(value),
            "response" => value.as_object().and_then(|response| response.get("usage")).and_then(parse),
            _ => None,
        };
        here.or(found)
    })
}

fn document() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (0_i64..5000).prop_map(Value::from),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(u64::MAX))
    ];
    let usage = (number.clone(), number.clone(), any::<bool>()).prop_map(|(input, output, new)| {
        if new {
            json!({"input_tokens": input, "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 1}})
        } else {
            json!({"prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": null})
        }
    });
    let leaf = prop_oneof![
        3 => usage,
        1 => number,
        1 => Just(Value::Null),
        1 => prop::sample::select(vec!["usage", "\\", "\"", "}", "{\"usage\":{\"prompt_tokens\":7}}", "\u{e9}\n"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop::sample::select(vec![
            "usage",
            "response",
            "usages",
            "respons",
            "a\"",
            "\\",
            "\u{fc}sage",
            "",
        ]);
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// Spells every letter of a key that matters as an escape, wherever it stands: the meaning stays the same.
fn escaped(document: &str) -> String {
    document.replace("usage", "us\\u0061\\u0067e").replace("response", "\\u0072esponse")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_split_finds_what_a_parser_finds(
        document in document(), pretty in any::<bool>(), escape in any::<bool>(),
        cuts in prop::collection::vec(0_usize..400, 0..8),
    ) {
        let mut text = if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
        if escape {
            text = escaped(&text);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts {
            let (piece, after) = rest.split_at(cut - start);
            pieces.push(piece);
            (rest, start) = (after, cut);
        }
        pieces.push(rest);
        prop_assert_eq!(scan(pieces), expected(&document), "{}", text);
        prop_assert_eq!(scan(text.as_bytes().chunks(1)), expected(&document), "{}", text);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(br#"{}[]",:\usage0061response"#.to_vec())], 0..300))
    {
        let whole = scan([bytes.as_slice()]);
        prop_assert_eq!(scan(bytes.chunks(3)), whole);
    }
}
