//! How far prompts are tokenised.

use proptest::prelude::*;
use serde_json::json;

use super::super::byte_bound;
use super::*;
use crate::names::ModelName;

const API: Api = Api::ChatCompletions;
const PROSE: &str = "It was a bright cold day in April, and the clocks were striking thirteen. ";

fn model() -> Model {
    Model::of(&ModelName::new("gpt-4o").unwrap())
}

fn body(text: &str) -> Vec<u8> {
    json!({"messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

fn within(body: &[u8], most: u64) -> Counted {
    count_prompt(API, &model(), body, Tokens::new(most), Stop::default())
}

/// Bytes that the tokeniser has seen.
fn tokenised(body: &[u8], most: u64, stop: Stop) -> u64 {
    let effort = Effort::Tokens(Tokenising::new(Tokens::new(most), stop));
    match walk(API, &model(), body, effort).unwrap().effort {
        Effort::Bytes => unreachable!(),
        Effort::Tokens(tokenising) => tokenising.bytes,
    }
}

#[test]
fn a_prompt_that_fits_is_counted_whole() {
    let body = body(&PROSE.repeat(1000));
    let whole = estimate_prompt(API, &model(), &body);
    for most in [whole.tokens.get(), whole.tokens.get() * 2, u64::MAX] {
        assert_eq!(within(&body, most), Counted::Whole(whole), "{most}");
    }
}

#[test]
fn a_refusal_that_is_certain_takes_a_few_thousand_bytes_however_long_the_prompt_is() {
    let letters = body(&"a".repeat(16 << 20));
    let escapes = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, r"\u0061".repeat(1 << 20));
    for (body, most) in [
        (body(&PROSE.repeat(10_000)), 0),
        (body(&PROSE.repeat(10_000)), 900),
        (letters.clone(), 0),
        (letters, 20_000),
        (escapes.into_bytes(), 5000),
        (
            json!({"messages": vec![json!({"role": "user", "content": PROSE}); 10_000]}).to_string().into(),
            500,
        ),
    ] {
        assert!(matches!(within(&body, most), Counted::Beyond(estimate) if estimate.tokens.get() > most));
        let seen = tokenised(&body, most, Stop::default());
        assert!(seen <= 8192, "{seen} bytes of {} for {most}", body.len());
    }
}

#[test]
fn what_was_left_out_is_told_by_what_was_not() {
    let body = body(&PROSE.repeat(2000));
    let whole = estimate_prompt(API, &model(), &body).tokens.get();
    for most in [0, 1000, whole / 2, whole - 10] {
        let Counted::Beyond(estimate) = within(&body, most) else { panic!("{most}") };
        assert!(estimate.tokens.get().abs_diff(whole) <= whole / 50, "{estimate:?} of {whole}");
    }
}

#[test]
fn a_short_prompt_is_never_guessed() {
    let body = body(&PROSE.repeat(50));
    let whole = estimate_prompt(API, &model(), &body);
    assert_eq!(within(&body, 0), Counted::Whole(whole));
}

#[test]
fn counting_ends_when_nobody_waits_for_it() {
    let stop = Stop::default();
    stop.set();
    assert_eq!(tokenised(&body(&PROSE.repeat(1000)), u64::MAX, stop), 0);
}

#[test]
fn the_bound_of_what_bytes_do_not_tell_holds_pictures_and_text() {
    let url = super::super::image_size::tests::png_url(1024, 1024);
    let body = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": PROSE.repeat(100)},
        {"type": "image_url", "image_url": {"url": url}},
    ]}]})
    .to_string();
    assert_eq!(byte_bound(body.as_bytes()), None);
    let (bound, estimate) =
        (bound_prompt(API, &model(), body.as_bytes()), estimate_prompt(API, &model(), body.as_bytes()));
    assert!(bound.tokens > estimate.tokens);
    assert!(bound.tokens.get() < estimate.tokens.get() + 100 * PROSE.len() as u64);
    assert_eq!((bound.basis, bound.kind), (estimate.basis, estimate.kind));
    assert_eq!(bound_prompt(API, &model(), b"no json").tokens, Tokens::new(7));
}

proptest! {
    #[test]
    fn no_estimate_is_above_the_bound(
        text in any::<String>(), name in "[a-z_]{1,20}", often in 1_usize..50, api in 0_usize..4,
    ) {
        let text = text.repeat(often);
        let tool = json!({"type": "function", "function": {"name": name, "description": text, "parameters": {
            "type": "object", "properties": {&name: {"type": "string", "enum": [text], "description": text}},
        }}});
        let call = json!({"id": "c", "type": "function", "function": {"name": name, "arguments": text}});
        let body = json!({
            "messages": [
                {"role": "user", "name": name, "content": text},
                {"role": "assistant", "tool_calls": [call, call]},
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": text}]},
            ],
            "tools": [tool, tool],
            "input": [
                {"role": "user", "content": text},
                {"type": "function_call", "name": name, "arguments": text, "call_id": "c"},
                {"type": "function_call_output", "call_id": "c", "output": text},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]},
            ],
            "prompt": [text, [1, 2]],
            "instructions": text,
        }).to_string();
        let api = [Api::ChatCompletions, Api::Completions, Api::Embeddings, Api::Responses][api];
        let estimate = estimate_prompt(api, &model(), body.as_bytes());
        let bound = bound_prompt(api, &model(), body.as_bytes());
        prop_assert!(estimate.tokens <= bound.tokens, "{:?} {:?}", estimate, bound);
        prop_assert_eq!(estimate.basis, bound.basis);
    }
}
