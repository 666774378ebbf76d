use proptest::prelude::*;

use super::*;

fn parse(body: &str) -> Result<Envelope<'_>, EnvelopeError> {
    Envelope::parse(body.as_bytes())
}

#[test]
fn fields_are_read_where_they_stand() {
    let body = r#" {"model":"chat","max_tokens": 20 ,"stream":true,"n":3,"best_of":2,"messages":[{"n":9}]}"#;
    let envelope = parse(body).unwrap();
    let model = envelope.model.clone().unwrap();
    assert_eq!((model.name.as_deref(), body.get(model.value)), (Some("chat"), Some(r#""chat""#)));
    assert!(envelope.stream);
    assert_eq!(envelope.choices, 3);
    assert_eq!(envelope.named_cap(&CapKey::ALL), Some((CapKey::MaxTokens, 20)));
    assert_eq!(body.get(envelope.caps[0].clone().unwrap().value), Some("20"));
    assert_eq!(envelope.fields_start, 2);
}

#[test]
fn every_answer_to_every_prompt_counts() {
    for (body, answers) in [
        ("{}", 1),
        (r#"{"n":0}"#, 1),
        (r#"{"n":3,"prompt":"a"}"#, 3),
        (r#"{"prompt":["a","b"]}"#, 2),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":[[1,2],[3]],"best_of":2}"#, 4),
        (r#"{"prompt":[1,"a"]}"#, 2),
        (r#"{"prompt":[]}"#, 1),
    ] {
        assert_eq!(parse(body).unwrap().answers(), answers, "{body}");
    }
}

#[test]
fn a_limit_that_the_api_does_not_know_is_none() {
    let envelope = parse(r#"{"max_tokens":5}"#).unwrap();
    assert_eq!(envelope.named_cap(&[CapKey::MaxOutputTokens]), None);
    assert_eq!(
        envelope.named_cap(&[CapKey::MaxOutputTokens, CapKey::MaxTokens]),
        Some((CapKey::MaxTokens, 5))
    );
}

#[test]
fn an_escaped_name_is_the_same_field() {
    let envelope = parse(r#"{"mod\u0065l":"ch\u0061t"}"#).unwrap();
    assert_eq!(envelope.model.unwrap().name.as_deref(), Some("chat"));
    assert_eq!(parse(r#"{"mod\u0065l":"a","model":"b"}"#).unwrap_err(), EnvelopeError::Duplicate("model"));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for body in [
        r#"{"model":"a","model":"a"}"#,
        r#"{"stream":true,"stream":false}"#,
        r#"{"Stream":true}"#,
        r#"{"MAX_TOKENS":5}"#,
        r#"{"max_tokens":1,"max_completion_tokens":2}"#,
        r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
        r#"{"stream_options":{"Include_Usage":true}}"#,
        r#"{"stream_options":{"include_u\u017fage":true}}"#,
    ] {
        assert!(parse(body).is_err(), "{body}");
    }
}

#[test]
fn a_name_beyond_ascii_that_folds_to_a_known_one_is_refused() {
    for body in ["{\"max_to\u{212a}ens\":5}", "{\"\u{17f}tream\":true}", r#"{"max_to\u212aens":5}"#] {
        assert!(matches!(parse(body), Err(EnvelopeError::Case { .. })), "{body}");
    }
    assert!(parse("{\"größe\":1}").is_ok());
}

#[test]
fn too_many_answers_are_named() {
    assert_eq!(parse(r#"{"n":128,"best_of":128}"#).unwrap().choices, 128);
    for (body, key, found) in [
        (r#"{"n":129}"#, "n", 129),
        (r#"{"n":1,"best_of":129}"#, "best_of", 129),
        (r#"{"n":18446744073709551615}"#, "n", u64::MAX),
    ] {
        let error = parse(body).unwrap_err();
        assert_eq!(error, EnvelopeError::Choices { key, found });
        assert_eq!(error.to_string(), format!("the field `{key}` must be at most 128, found {found}"));
    }
}

#[test]
fn a_model_of_any_kind_is_a_field_without_a_name() {
    for value in ["null", "5", "{}", r#"["a"]"#] {
        let body = format!(r#"{{"model":{value}}}"#);
        let model = parse(&body).unwrap().model.unwrap();
        assert_eq!((model.name, body.get(model.value)), (None, Some(value)));
    }
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    for (body, key) in [
        (r#"{"stream":"true"}"#, "stream"),
        (r#"{"max_tokens":-1}"#, "max_tokens"),
        (r#"{"max_tokens":1.5}"#, "max_tokens"),
        (r#"{"n":"2"}"#, "n"),
        (r#"{"stream_options":[]}"#, "stream_options"),
        (r#"{"background":1}"#, "background"),
        (r#"{"tools":[{"type":"function","type":"web_search"}]}"#, "tools"),
        (r#"{"tools":[{"type":"web_search"},5]}"#, "tools"),
    ] {
        assert!(
            matches!(parse(body), Err(EnvelopeError::Value { key: found, .. }) if found == key),
            "{body}"
        );
    }
}

#[test]
fn garbage_is_a_syntax_error() {
    for body in ["", "null", "[]", "{", "{\"a\":}", "\"text\"", "{}{}", "{\"a\":1,}", "[[[[[["] {
        assert!(matches!(parse(body), Err(EnvelopeError::Syntax(_))), "{body}");
    }
    assert_eq!(parse(&"[".repeat(100_000)), Err(EnvelopeError::Shape(ShapeError::Depth)));
    assert_eq!(Envelope::parse(b"{\"a\":\"\xff\"}"), Err(EnvelopeError::Encoding(6)));
}

#[test]
fn what_escapes_metering_is_seen() {
    for (body, expected) in [
        (r#"{"background":true}"#, Some(Unmeterable::Background)),
        (r#"{"background":false}"#, None),
        (r#"{"previous_response_id":"resp_1"}"#, Some(Unmeterable::StoredState("previous_response_id"))),
        (r#"{"previous_response_id":null}"#, None),
        (r#"{"prompt":{"id":"p"}}"#, Some(Unmeterable::StoredInput("prompt"))),
        (r#"{"prompt":"text"}"#, None),
        (
            r#"{"tools":[{"type":"function"},{"type":"web_search"}]}"#,
            Some(Unmeterable::HostedTool("web_search".to_owned())),
        ),
        (
            r#"{"tools":[{"type":"mcp"}],"conversation":"conv_1"}"#,
            Some(Unmeterable::StoredState("conversation")),
        ),
        (r#"{"multi_agent":{"enabled":true}}"#, Some(Unmeterable::OwnCalls("multi_agent"))),
        (r#"{"context_management":null}"#, None),
        (r#"{"tools":[{"type":"function","function":{"name":"f"}}]}"#, None),
        (r#"{"data_sources":[{}]}"#, Some(Unmeterable::StoredInput("data_sources"))),
        (r#"{"web_search_options":{}}"#, Some(Unmeterable::StoredInput("web_search_options"))),
        (r#"{"input":[{"id":"msg_1"}]}"#, Some(Unmeterable::StoredState("input"))),
        (r#"{"input":[{"\u0069d":"msg_1","type":null}]}"#, Some(Unmeterable::StoredState("input"))),
        (r#"{"input":[{"id":"msg_1","type":"message"},{"id":"msg_2","role":"user"}]}"#, None),
        (r#"{"input":[{"role":"user","content":"{\"id\":1}"}]}"#, None),
        (r#"{"input":["\"id\"",[1,2],3]}"#, None),
    ] {
        assert_eq!(parse(body).unwrap().unmeterable, expected, "{body}");
    }
    assert!(parse(r#"{"input":[{"id":"msg_1","type":"message","type":null}]}"#).is_err());
    for (tier, expected) in
        [("null", false), (r#""auto""#, false), (r#""flex""#, false), (r#""priority""#, true)]
    {
        assert_eq!(parse(&format!(r#"{{"service_tier":{tier}}}"#)).unwrap().is_dearer, expected, "{tier}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(envelope) = Envelope::parse(&body) {
            prop_assert_eq!(body[envelope.fields_start - 1], b'{');
        }
    }

    #[test]
    fn no_object_panics(body in r#"\{("(model|stream|n|max_tokens|stream_options|tools)":(null|1|"a"|\{\}|\[1\]|true),?){0,4}\}"#) {
        let _checked = Envelope::parse(body.as_bytes());
    }
}
