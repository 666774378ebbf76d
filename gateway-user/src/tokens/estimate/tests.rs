use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::audio::tests::wav_of;
use super::super::byte_bound;
use super::super::image_size::tests::png_url;
use super::*;
use crate::names::ModelName;

fn known(model: &str) -> Model {
    Model::of(&ModelName::new(model).unwrap())
}

fn estimate(api: Api, model: &str, body: &Value) -> Estimate {
    estimate_prompt(api, &known(model), body.to_string().as_bytes())
}

fn figures(estimate: Estimate) -> (u64, Basis) {
    (estimate.tokens.get(), estimate.basis)
}

fn counted(api: Api, model: &str, body: &Value) -> u64 {
    let estimate = estimate(api, model, body);
    assert_eq!(estimate.basis, Basis::Counted, "{body}");
    estimate.tokens.get()
}

fn chat(model: &str, body: &Value) -> u64 {
    counted(Api::ChatCompletions, model, body)
}

/// OpenAI cookbook, "How to count tokens with tiktoken", section 6.
fn jargon() -> Value {
    json!({"messages": [
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]})
}

/// The same, section 7.
fn weather() -> Value {
    json!({
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
            {"role": "user", "content": "What's the weather like in San Francisco?"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                    "unit": {
                        "type": "string",
                        "description": "The unit of temperature to return",
                        "enum": ["celsius", "fahrenheit"],
                    },
                },
                "required": ["location"],
            },
        }}],
    })
}

#[test]
fn messages_cost_what_the_cookbook_says() {
    assert_eq!(chat("gpt-4", &jargon()), 129);
    assert_eq!(chat("gpt-35-turbo", &jargon()), 129);
    assert_eq!(chat("gpt-4o", &jargon()), 124);
    assert_eq!(chat("gpt-4o-mini", &jargon()), 124);
}

#[test]
fn tools_cost_what_the_cookbook_says_and_little_more() {
    for (model, published) in [("gpt-4", 105), ("gpt-35-turbo", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)] {
        let tokens = chat(model, &weather());
        assert!((published..=published + 12).contains(&tokens), "{model}: {tokens}");
    }
}

#[test]
fn functions_of_the_old_shape_and_tools_of_the_new_cost_the_same() {
    let mut old = weather();
    let function = old["tools"][0]["function"].clone();
    old["functions"] = json!([function]);
    old.as_object_mut().unwrap().remove("tools");
    assert_eq!(chat("gpt-4o", &old), chat("gpt-4o", &weather()));

    let mut items = weather();
    let mut flat = items["tools"][0]["function"].clone();
    flat["type"] = json!("function");
    items["tools"] = json!([flat]);
    items["input"] = items["messages"].take();
    // They share the message of the instructions.
    assert_eq!(counted(Api::Responses, "gpt-4o", &items) + 3, chat("gpt-4o", &weather()));
}

#[test]
fn parts_cost_what_their_text_does() {
    let text = json!({"messages": [{"role": "user", "content": "Good morning, gateway."}]});
    let parts = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Good morning,"}, {"type": "text", "text": " gateway."},
    ]}]});
    assert_eq!(chat("gpt-4o", &text), chat("gpt-4o", &parts));
    let items = json!({"input": [{"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "Good morning, gateway."},
    ]}]});
    assert_eq!(chat("gpt-4o", &text), counted(Api::Responses, "gpt-4o", &items));
    assert_eq!(
        chat("gpt-4o", &text),
        counted(Api::Responses, "gpt-4o", &json!({"input": "Good morning, gateway."}))
    );
}

#[test]
fn images_cost_what_the_guide_says() {
    let nothing = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]});
    let base = chat("gpt-4o", &nothing);
    let with = |part: Value| {
        let mut body = nothing.clone();
        body["messages"][0]["content"].as_array_mut().unwrap().push(part);
        let estimate = estimate(Api::ChatCompletions, "gpt-4o", &body);
        (estimate.tokens.get() - base, estimate.basis)
    };
    let image =
        |url: &str, detail: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
    assert_eq!(with(image(&png_url(1024, 1024), "high")), (765, Basis::Counted));
    assert_eq!(with(image(&png_url(2048, 4096), "high")), (1105, Basis::Counted));
    assert_eq!(with(image(&png_url(4096, 8192), "low")), (85, Basis::Counted));
    assert_eq!(with(image("https://example.org/cat.png", "low")), (85, Basis::Counted));
    assert_eq!(with(image("https://example.org/cat.png", "auto")), (1445, Basis::Bound));
    assert_eq!(with(json!({"type": "image_url", "image_url": {}})), (1445, Basis::Bound));
    assert_eq!(with(json!({"type": "image_url"})), (1445, Basis::Bound));
    let item = json!({"type": "input_image", "image_url": png_url(1024, 1024), "detail": "high"});
    assert_eq!(with(item), (765, Basis::Counted));
}

#[test]
fn an_image_in_a_call_s_output_counts() {
    let body = json!({"input": [{"type": "function_call_output", "call_id": "1", "output": [
        {"type": "input_image", "image_url": png_url(1024, 1024), "detail": "high"},
    ]}]});
    assert_eq!(counted(Api::Responses, "gpt-4o", &body), 765 + 3 + 3 + 4);
}

#[test]
fn sounds_and_files_are_assumed() {
    let part = |part: Value| {
        estimate(Api::ChatCompletions, "gpt-4o", &json!({"messages": [{"role": "user", "content": [part]}]}))
    };
    let sound =
        part(json!({"type": "input_audio", "input_audio": {"data": "A".repeat(4000), "format": "mp3"}}));
    assert_eq!(figures(sound), (7 + 30, Basis::Bound));
    let file = part(json!({"type": "file", "file": {"file_id": "file-1"}}));
    assert_eq!(figures(file), (7 + 4096, Basis::Kept));
    // Zeros are no text, and no file that is known.
    let data = part(json!({"type": "file", "file": {"file_data": "A".repeat(160_000)}}));
    assert_eq!(figures(data), (7 + 10_000, Basis::Stored));
}

#[test]
fn a_file_counts_as_the_text_and_pages_that_it_holds() {
    let part = |bytes: &[u8], start: &str| {
        let data = format!("{start}{}", STANDARD.encode(bytes));
        let part = json!({"type": "input_file", "filename": "a.pdf", "file_data": data});
        estimate(Api::Responses, "gpt-4o", &json!({"input": [{"role": "user", "content": [part]}]}))
    };
    let pdf = b"%PDF-1.4\n1 0 obj<</Type/Page/Contents 2 0 R>>endobj\n2 0 obj<<>>stream\n(2 + 2 = 4) Tj\nendstream endobj";
    let text = "a.pdf";
    let name = super::super::count_text(crate::model::Encoding::O200k, text).get();
    for start in ["", "data:application/pdf;base64,"] {
        let estimate = part(pdf, start);
        assert_eq!(estimate.basis, Basis::Bound);
        assert!((7 + name + 7 + 320..=7 + name + 9 + 320).contains(&estimate.tokens.get()), "{estimate:?}");
    }
    let plain = part(b"2 + 2 = 4", "");
    assert_eq!(figures(plain), (7 + name + 7, Basis::Counted));
    for unknown in [b"%PDF-1.4 <</Encrypt 1 0 R>>".as_slice(), b"PK\x03\x04\0", b"\xff\xfe"] {
        assert_eq!(part(unknown, "").basis, Basis::Stored);
    }
}

#[test]
fn many_files_together_are_inflated_as_far_as_one() {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zlib, &b"(Hello) Tj ".repeat(20_000)).unwrap();
    let mut pdf =
        b"%PDF-1.4\n1 0 obj<</Type/Page/Contents 2 0 R>>endobj\n2 0 obj<</Filter/FlateDecode>>stream\n"
            .to_vec();
    pdf.extend(zlib.finish().unwrap());
    pdf.extend(b"\nendstream endobj");
    let part = json!({"type": "input_file", "file_data": STANDARD.encode(pdf)});
    let with = |files: usize| {
        let content = vec![part.clone(); files];
        estimate(Api::Responses, "gpt-4o", &json!({"input": [{"role": "user", "content": content}]}))
    };
    assert_eq!(with(1).basis, Basis::Bound);
    assert!(with(1).tokens > Tokens::new(20_000));
    assert_eq!(with(19).basis, Basis::Bound);
    // Four mebibytes.
    assert_eq!(with(20).basis, Basis::Stored);
}

#[test]
fn a_recording_counts_by_its_length() {
    let part = |bytes: &[u8], format: &str| {
        let sound = json!({"data": STANDARD.encode(bytes), "format": format});
        let part = json!({"type": "input_audio", "input_audio": sound});
        estimate(Api::ChatCompletions, "gpt-4o", &json!({"messages": [{"role": "user", "content": [part]}]}))
    };
    let wav = wav_of(16_000, 2);
    assert_eq!(figures(part(&wav, "wav")), (7 + 20, Basis::Counted));
    assert_eq!(part(&wav, "mp3").basis, Basis::Bound);
    assert!(part(&wav, "mp3").tokens.get() > 640);
}

#[test]
fn the_detail_of_an_image_is_where_the_api_looks_for_it() {
    let cost = |part: Value| {
        let body = json!({"messages": [{"role": "user", "content": [part]}]});
        estimate(Api::ChatCompletions, "gpt-4o-mini", &body).tokens.get()
    };
    let high = json!({"url": png_url(1024, 1024), "detail": "high"});
    let plain = cost(json!({"type": "image_url", "image_url": high}));
    let hidden = cost(json!({"type": "image_url", "image_url": high, "detail": "low"}));
    let silent =
        cost(json!({"detail": "low", "type": "image_url", "image_url": {"url": png_url(1024, 1024)}}));
    assert_eq!((hidden, silent), (plain, plain));
}

#[test]
fn what_an_item_holds_counts_whatever_it_is_called() {
    let text = "antidisestablishmentarianism ".repeat(100);
    let least = super::super::count_text(crate::model::Encoding::O200k, &text).get();
    for item in [
        json!({"type": "mcp_list_tools", "id": "1", "tools": [{"name": "f", "description": text}]}),
        json!({"type": "apply_patch_call", "operation": {"type": "update_file", "diff": text}}),
        json!({"type": "shell_call_output", "output": [{"stdout": text, "stderr": ""}]}),
        json!({"type": "file_search_call", "queries": [text]}),
        json!({"role": "assistant", "thinking": text}),
    ] {
        let tokens = estimate(Api::Responses, "gpt-5", &json!({"input": [item]})).tokens.get();
        assert!(tokens >= least, "{tokens} of {least}: {item:.60}");
    }
    // What names, links and describes an item is not shown to the model.
    let bare = json!({"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]});
    let full = json!({"id": "msg_0123456789", "type": "message", "status": "completed", "phase": "final_answer",
    "role": "assistant", "content": [
        {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []},
    ]});
    let count = |item: Value| counted(Api::Responses, "gpt-5", &json!({"input": [item]}));
    assert_eq!(count(bare), count(full));
    let drawn =
        json!({"input": [{"type": "image_generation_call", "id": "1", "result": "A".repeat(100_000)}]});
    assert!(estimate(Api::Responses, "gpt-5", &drawn).tokens.get() < 10_000, "a picture is no text");
}

#[test]
fn what_upstream_holds_is_allowed_for() {
    for (body, basis) in [
        (json!({"input": "", "previous_response_id": "resp_1"}), Basis::Stored),
        (json!({"input": "", "conversation": {"id": "conv_1"}}), Basis::Stored),
        (json!({"prompt": {"id": "pmpt_1"}}), Basis::Stored),
        (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), Basis::Kept),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]}),
            Basis::Stored,
        ),
        (json!({"input": "", "tools": [{"type": "web_search_preview"}]}), Basis::Allowance),
    ] {
        let estimate = estimate(Api::Responses, "gpt-5", &body);
        assert_eq!(estimate.basis, basis, "{body}");
        assert!(estimate.tokens >= REFERENCE_TOKENS);
    }
    assert_eq!(counted(Api::Responses, "gpt-5", &json!({"input": "", "previous_response_id": null})), 7);
}

#[test]
fn what_a_tool_found_upstream_is_stored_input_unless_it_is_shown() {
    let picture = "A".repeat(400);
    for (item, basis) in [
        (json!({"type": "web_search_call", "id": "ws_1", "action": {"query": "cats"}}), Basis::Stored),
        (
            json!({"type": "file_search_call", "id": "fs_1", "queries": ["cats"], "results": null}),
            Basis::Stored,
        ),
        (json!({"type": "file_search_call", "id": "fs_1", "results": [{"text": "cats"}]}), Basis::Counted),
        (json!({"type": "image_generation_call", "id": "ig_1"}), Basis::Stored),
        (json!({"type": "image_generation_call", "id": "ig_1", "result": picture}), Basis::Bound),
        (json!({"type": "code_interpreter_call", "id": "ci_1", "code": "1 + 1"}), Basis::Stored),
        (json!({"type": "code_interpreter_call", "id": "ci_1", "outputs": []}), Basis::Counted),
        (json!({"id": "mcp_1", "type": "mcp_call"}), Basis::Stored),
        (json!({"id": "mcp_1", "type": "mcp_call", "output": "cats"}), Basis::Counted),
        (json!({"type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}"}), Basis::Counted),
    ] {
        assert_eq!(estimate(Api::Responses, "gpt-4o", &json!({"input": [item]})).basis, basis, "{item}");
    }
}

#[test]
fn tools_that_others_define_are_allowed_for() {
    for (tool, basis) in [
        (json!({"type": "function", "name": "f"}), Basis::Counted),
        (json!({"type": "custom", "name": "f"}), Basis::Counted),
        (
            json!({"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "f"}]}),
            Basis::Counted,
        ),
        (json!({"type": "apply_patch"}), Basis::Allowance),
        (json!({"type": "shell"}), Basis::Allowance),
        (json!({"type": "tool_search", "execution": "client"}), Basis::Counted),
        (json!({"type": "tool_search"}), Basis::Allowance),
        (json!({"type": "yet_to_come"}), Basis::Counted),
    ] {
        let body = json!({"input": "", "tools": [tool]});
        assert_eq!(estimate(Api::Responses, "gpt-4o", &body).basis, basis, "{tool}");
    }
}

#[test]
fn completions_and_embeddings_take_texts_and_token_ids() {
    for (api, key, model) in [
        (Api::Completions, "prompt", "gpt-35-turbo-instruct"),
        (Api::Embeddings, "input", "text-embedding-3-small"),
    ] {
        let count = |input: Value| counted(api, model, &json!({key: input, "n": 3}));
        assert_eq!(count(json!("2 + 2 = 4")), 7);
        assert_eq!(count(json!(["2 + 2 = 4", "antidisestablishmentarianism"])), 13);
        assert_eq!(count(json!([1, 2, 3])), 3);
        assert_eq!(count(json!([[1, 2, 3], [4, 5]])), 5);
        assert_eq!(count(json!([])), 0);
    }
    assert_eq!(counted(Api::Completions, "gpt-35-turbo", &json!({"prompt": "2 + 2", "suffix": " = 4"})), 7);
}

#[test]
fn a_schema_within_a_schema_counts_wherever_it_stands() {
    let text = "antidisestablishmentarianism ".repeat(100);
    let least = super::super::count_text(crate::model::Encoding::O200k, &text).get();
    let more = json!({"type": "object", "additionalProperties": {"description": text}});
    for parameters in [more.clone(), json!({"type": "object", "properties": {"a": more}})] {
        let body = json!({"messages": [], "tools": [{"function": {"name": "f", "parameters": parameters}}]});
        assert!(chat("gpt-4o", &body) >= least);
    }
    let body = json!({"messages": [], "response_format": {"type": "grammar", "grammar": text}});
    assert!(chat("gpt-4o", &body) >= least);
}

#[test]
fn schemas_count_as_they_are_written() {
    let mut body = json!({"messages": [{"role": "user", "content": "?"}]});
    let without = chat("gpt-4o", &body);
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(chat("gpt-4o", &body), without);
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    // White space between its parts is the caller's own.
    let spaced = serde_json::to_string_pretty(&body).unwrap();
    assert_eq!(
        estimate_prompt(Api::ChatCompletions, &known("gpt-4o"), spaced.as_bytes()).tokens.get(),
        chat("gpt-4o", &body)
    );
    let written = super::super::count_text(crate::model::Encoding::O200k, &schema.to_string()).get();
    assert_eq!(chat("gpt-4o", &body), without + 10 + 1 + written);
}

#[test]
fn repeated_keys_all_count() {
    let once = br#"{"messages":[{"role":"user","content":"aaaa bbbb"}]}"#;
    let twice =
        br#"{"messages":[],"messages":[{"content":"aaaa bbbb","role":"user","content":"aaaa bbbb"}]}"#;
    let model = known("gpt-4o");
    assert!(
        estimate_prompt(Api::ChatCompletions, &model, twice).tokens
            > estimate_prompt(Api::ChatCompletions, &model, once).tokens
    );
}

#[test]
fn what_cannot_be_read_counts_as_its_bytes() {
    let model = known("gpt-4o");
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 6] = [b"", b"{", b"[]", b"\"text\"", b"{\"messages\":\"\xff\xfe\"}", deep.as_bytes()];
    for body in bodies {
        let estimate = estimate_prompt(Api::ChatCompletions, &model, body);
        assert_eq!((estimate.tokens, estimate.basis), (Tokens::from_bytes(body.len()), Basis::Bound));
        assert!(estimate.is_bound());
    }
    let half_a_pair = br#"{"messages":[{"\ud800":1,"role":"user","content":"hello"}]}"#;
    let estimate = estimate_prompt(Api::ChatCompletions, &model, half_a_pair);
    assert_eq!((estimate.tokens, estimate.basis), (Tokens::from_bytes(half_a_pair.len()), Basis::Bound));
}

#[test]
fn deep_nesting_is_walked_without_recursion_into_it() {
    let model = known("gpt-4o");
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let schema = format!("{}1{}", r#"{"properties":{"a":"#.repeat(10_000), "}}".repeat(10_000));
    for body in [
        format!(r#"{{"messages":{deep}}}"#),
        format!(r#"{{"messages":[{{"content":{deep}}}]}}"#),
        format!(r#"{{"tools":[{{"name":"f","parameters":{schema}}}]}}"#),
        format!(r#"{{"response_format":{}1{}}}"#, r#"{"json_schema":"#.repeat(10_000), "}".repeat(10_000)),
    ] {
        let estimate = estimate_prompt(Api::ChatCompletions, &model, body.as_bytes());
        assert!(estimate.tokens <= Tokens::from_bytes(body.len()));
    }
}

#[test]
fn the_tightest_shapes_stay_below_their_bytes() {
    let repeat = |item: &str| [item; 200].join(",");
    for (api, body) in [
        (Api::ChatCompletions, format!(r#"{{"messages":[{}]}}"#, repeat("{}"))),
        (Api::ChatCompletions, format!(r#"{{"messages":[{}]}}"#, repeat(r#"{"name":""}"#))),
        (Api::ChatCompletions, format!(r#"{{"messages":[{{"tool_calls":[{}]}}]}}"#, repeat("{}"))),
        (Api::ChatCompletions, r#"{"tools":[0]}"#.to_owned()),
        (Api::ChatCompletions, r#"{"tools":[{"name":""}]}"#.to_owned()),
        (Api::ChatCompletions, format!(r#"{{"tools":[{}]}}"#, repeat(r#"{"name":""}"#))),
        (
            Api::ChatCompletions,
            format!(r#"{{"tools":[{{"parameters":{{"properties":{{{}}}}}}}]}}"#, repeat(r#""":{}"#)),
        ),
        (
            Api::ChatCompletions,
            format!(
                r#"{{"tools":[{{"parameters":{{"properties":{{"":{{"enum":[{}]}}}}}}}}]}}"#,
                repeat(r#""""#)
            ),
        ),
        (
            Api::ChatCompletions,
            format!(r#"{{"tools":[{{"parameters":{{"properties":{{"":{{"enum":[{}]}}}}}}}}]}}"#, repeat("1")),
        ),
        (Api::ChatCompletions, r#"{"response_format":{"schema":0}}"#.to_owned()),
        (Api::Responses, format!(r#"{{"input":[{}]}}"#, repeat("{}"))),
        (Api::Responses, r#"{"input":1,"instructions":2}"#.to_owned()),
        (Api::Completions, format!(r#"{{"prompt":[{}]}}"#, repeat("1"))),
        (Api::Completions, r#"{"prompt":1}"#.to_owned()),
        (Api::Embeddings, format!(r#"{{"input":[[{}]]}}"#, repeat("1"))),
    ] {
        for model in ["gpt-4", "gpt-4o"] {
            let estimate = estimate_prompt(api, &known(model), body.as_bytes());
            let bound = byte_bound(body.as_bytes()).unwrap();
            assert!(estimate.tokens <= bound, "{} above {bound}: {body}", estimate.tokens);
        }
    }
}

#[test]
fn a_chat_with_tools_costs_more_since_gpt_5() {
    let call = json!({"messages": [{"role": "user", "content": "What is 15 * 8?"}], "tools": [{"type": "function", "function": {
        "name": "calculator", "description": "Perform calculations.", "parameters": {
            "type": "object", "properties": {"expression": {"type": "string", "title": "Expression"}},
            "required": ["expression"],
    }}}]});
    let extra = chat("gpt-5-nano", &call) - chat("gpt-4o", &call);
    assert!((79..=93).contains(&extra), "{extra}");
    assert_eq!(chat("gpt-5.4-mini", &call), chat("gpt-5-nano", &call));
    let mut response = call.clone();
    response["input"] = response["messages"].take();
    let flat = response["tools"][0]["function"].take();
    response["tools"] = json!([flat]);
    assert_eq!(counted(Api::Responses, "gpt-5", &response), counted(Api::Responses, "gpt-4o", &response));
    // The same tools, given in the conversation.
    let mut added = json!({"input": response["input"]});
    added["input"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "additional_tools", "role": "developer", "tools": response["tools"]}));
    let more = counted(Api::Responses, "gpt-5", &added) - counted(Api::Responses, "gpt-5", &response);
    assert!((79..=100).contains(&more), "{more}");
    for body in [call, added] {
        let bound = byte_bound(body.to_string().as_bytes()).unwrap();
        assert!(bound.get() > chat("gpt-5", &body), "{bound}");
    }
}

#[test]
fn a_custom_tool_costs_how_it_is_called() {
    let tool =
        |kind: &str| json!({"input": "", "tools": [{"type": kind, "name": "run", "description": "Runs."}]});
    assert_eq!(
        counted(Api::Responses, "gpt-5", &tool("custom")),
        counted(Api::Responses, "gpt-5", &tool("function")) + 30
    );
}

#[test]
fn a_definition_counts_wherever_it_is_referred_to() {
    let entity = json!({"type": "object", "properties": {
        "name": {"type": "string", "description": "The name of the entity."},
        "kind": {"type": "string", "description": "The kind of the entity."},
    }});
    let with = |parameters: Value| {
        chat(
            "gpt-4o",
            &json!({"messages": [], "tools": [{"function": {"name": "f", "parameters": parameters}}]}),
        )
    };
    let inline = with(json!({"properties": {"a": entity, "b": {"type": "array", "items": entity}}}));
    let referred = with(json!({"$defs": {"Entity": entity}, "properties": {
        "a": {"$ref": "#/$defs/Entity"}, "b": {"type": "array", "items": {"$ref": "#/$defs/Entity"}},
    }}));
    assert!(referred.abs_diff(inline) <= 4, "{referred} for {inline}");
    // Nothing refers to it: it counts as it is written.
    let unused = with(json!({"$defs": {"Entity": entity}, "properties": {"a": {}}}));
    assert!(unused > with(json!({"properties": {"a": {}}})) + 20);
}

#[test]
fn definitions_that_refer_to_each_other_take_no_time() {
    // Each refers to the next twice, and the last to the first: written out, more than the world has memory.
    let name = |n: usize| format!("#/$defs/d{n}");
    let definitions: serde_json::Map<String, Value> = (0..500)
        .map(|n| {
            let next = json!({"$ref": name((n + 1) % 500)});
            (format!("d{n}"), json!({"type": "object", "properties": {"a": next, "b": next}}))
        })
        .collect();
    let body = json!({"messages": [], "tools": [{"function": {"name": "f", "parameters": {
        "$defs": definitions, "properties": {"a": {"$ref": name(0)}},
    }}}]});
    assert!(chat("gpt-4o", &body) > 500);
    assert_eq!(byte_bound(body.to_string().as_bytes()), None);
}

#[test]
fn the_results_of_parallel_calls_are_shown_in_ascii() {
    let conversation = |calls: usize| {
        let call = |n: usize| json!({"id": format!("call_{n}"), "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let result = |n: usize| json!({"role": "tool", "tool_call_id": format!("call_{n}"), "content": "테스트 ".repeat(200)});
        let mut messages =
            vec![json!({"role": "assistant", "tool_calls": (0..calls).map(call).collect::<Vec<_>>()})];
        messages.extend((0..calls).map(result));
        json!({"messages": messages})
    };
    let (one, two) = (chat("gpt-4.1", &conversation(1)), chat("gpt-4.1", &conversation(2)));
    assert!(two > 8 * one, "{two} after {one}");
    // Korean has three bytes a character, its escapes have six.
    let body = conversation(2).to_string();
    assert!(byte_bound(body.as_bytes()).unwrap().get() >= two);
    assert!(byte_bound(body.as_bytes()).unwrap() > Tokens::from_bytes(body.len()));
}

fn sealed(bytes: usize) -> String {
    "A".repeat(bytes)
}

#[test]
fn reasoning_handed_back_counts_within_its_turn() {
    let item = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Thinking."}],
        "encrypted_content": sealed(1330)});
    let ask = json!({"role": "user", "content": "?"});
    let with = |model: &str, input: Value, context: Value| {
        let body = json!({"input": input, "reasoning": {"context": context}});
        estimate(Api::Responses, model, &body).tokens.get()
    };
    let base = with("gpt-5", json!([ask]), Value::Null);
    assert_eq!(with("gpt-5", json!([ask, item]), Value::Null), base + 101);
    assert_eq!(with("gpt-5", json!([item, ask]), Value::Null), base + 1);
    assert_eq!(with("gpt-5", json!([item, ask, item]), Value::Null), base + 102);
    // As the request says, or since GPT-5.6 by itself.
    assert_eq!(with("gpt-5", json!([item, ask]), json!("all_turns")), base + 101);
    assert_eq!(with("gpt-5.6", json!([item, ask]), json!("current_turn")), base + 1);
    assert_eq!(with("gpt-5.6-sol", json!([item, ask]), json!("auto")), base + 101);
    assert_eq!(with("someone-elses", json!([item, ask]), Value::Null), base + 101);
}

#[test]
fn reasoning_known_by_its_id_is_an_allowance() {
    let ask = json!({"role": "user", "content": "?"});
    let with = |item: Value| estimate(Api::Responses, "gpt-5", &json!({"input": [ask, item]}));
    let base = counted(Api::Responses, "gpt-5", &json!({"input": [ask]}));
    for item in [
        json!({"type": "reasoning", "id": "rs_1", "summary": []}),
        json!({"type": "reasoning", "id": "rs_1", "encrypted_content": null, "content": []}),
    ] {
        assert_eq!(with(item.clone()).tokens.get(), base + 1 + 512, "{item}");
        assert!(!with(item).is_boundless());
    }
    let shown = json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a b c d"}]});
    assert_eq!(with(shown).tokens.get(), base + 1 + 4);
}

#[test]
fn a_compacted_conversation_counts_by_its_bytes() {
    let body = json!({"input": [{"type": "compaction", "encrypted_content": sealed(2800)}, {"role": "user", "content": "?"}]});
    let tokens = estimate(Api::Responses, "gpt-4o-mini", &body).tokens.get();
    assert!((260..=320).contains(&tokens), "{tokens}");
}

#[test]
fn the_attempts_of_pro_are_allowed_for() {
    let mut body = json!({"input": "?", "reasoning": {"mode": "standard"}});
    let standard = counted(Api::Responses, "gpt-5.6", &body);
    body["reasoning"]["mode"] = json!("pro");
    assert_eq!(estimate(Api::Responses, "gpt-5.6", &body).tokens.get(), standard + 2048);
    assert_eq!(byte_bound(body.to_string().as_bytes()), None);
}

#[test]
fn a_request_is_of_the_kind_that_its_parts_make_it() {
    let kind = |api, body: Value| estimate(api, "gpt-4o", &body).kind;
    let with = |part: Value| json!({"messages": [{"role": "user", "content": [part]}], "tools": [{"function": {"name": "f"}}]});
    assert_eq!(kind(Api::Embeddings, json!({"input": "a"})), PromptKind::Embeddings);
    assert_eq!(kind(Api::Completions, json!({"prompt": "a"})), PromptKind::Completions);
    assert_eq!(kind(Api::Responses, json!({"input": "a", "tools": []})), PromptKind::Responses);
    assert_eq!(
        kind(Api::Responses, json!({"input": "a", "tools": [{"type": "custom"}]})),
        PromptKind::ResponsesTools
    );
    assert_eq!(
        kind(Api::Responses, json!({"input": "a", "previous_response_id": "resp_1"})),
        PromptKind::Stored
    );
    for (part, expected) in [
        (json!({"type": "text", "text": "a"}), PromptKind::ChatTools),
        (json!({"type": "image_url", "image_url": {"url": png_url(8, 8)}}), PromptKind::Images),
        (json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), PromptKind::Audio),
        (json!({"type": "file", "file": {"file_data": "YQ=="}}), PromptKind::Files),
        (json!({"type": "file", "file": {"file_id": "file-1"}}), PromptKind::Stored),
    ] {
        assert_eq!(kind(Api::ChatCompletions, with(part)), expected);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~\u{e9}漢\\n]{0,12}".prop_map(Value::from),
        Just(Value::from("")),
        prop::sample::select(vec![
            "function",
            "custom",
            "function_call",
            "user",
            "tool",
            "required",
            "object"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// The keys that mean something, and some that do not.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "messages",
        "input",
        "prompt_",
        "role",
        "content",
        "name",
        "tool_calls",
        "function",
        "arguments",
        "tools",
        "functions",
        "parameters",
        "properties",
        "items",
        "enum",
        "type",
        "description",
        "text",
        "format",
        "schema",
        "json_schema",
        "response_format",
        "instructions",
        "output",
        "summary",
        "custom",
        "anyOf",
        "$defs",
        "title",
        "default",
        "call_id",
        "tool_call_id",
        "tool_choice",
        "reasoning_",
        "refusal",
        "id",
        "status",
        "a",
        "",
    ])
    .prop_map(str::to_owned)
}

fn body() -> impl Strategy<Value = Value> {
    prop::collection::vec((prop_oneof![key(), Just("prompt".to_owned())], json_value()), 0..8)
        .prop_map(|entries| entries.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_estimate_is_above_the_byte_bound(body in body()) {
        let body = body.to_string();
        if let Some(bound) = byte_bound(body.as_bytes()) {
            for api in [Api::ChatCompletions, Api::Completions, Api::Embeddings, Api::Responses] {
                for model in ["gpt-4", "gpt-5"] {
                    let estimate = estimate_prompt(api, &known(model), body.as_bytes());
                    prop_assert!(estimate.tokens <= bound, "{:?} {:?}: {}", api, estimate, body);
                }
            }
        }
    }

    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for api in [Api::ChatCompletions, Api::Completions, Api::Embeddings, Api::Responses] {
            let estimate = estimate_prompt(api, &known("gpt-4"), &bytes);
            prop_assert!(estimate.tokens <= Tokens::from_bytes(bytes.len() + 3));
        }
    }
}
