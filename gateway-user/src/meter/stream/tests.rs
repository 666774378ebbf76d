use proptest::prelude::*;

use super::*;

const CHAT: &str = concat!(
    "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"prompt_filter_results\":[]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"\",\"role\":\"assistant\"},\"index\":0}],\"created\":7,",
    "\"id\":\"chatcmpl-1\",\"model\":\"gpt-4o-mini\",\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hello \\\"wor\\u006cd\\\"\"},\"index\":0}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\" again\"}}]},",
    "\"index\":1}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\",\"index\":0}],\"usage\":null}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14}}\n\n",
    "data: [DONE]\n\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":",
    "{\"id\":\"resp_1\",\"model\":\"gpt-4o-mini\",\"usage\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,",
    "\"delta\":\"Hello world\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":",
    "{\"id\":\"resp_1\",\"output\":[{\"usage\":{}}],\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n",
);

fn metered(api: Api, pieces: &[&[u8]]) -> StreamMeter {
    let mut meter = StreamMeter::new(api, Encoding::O200k);
    pieces.iter().for_each(|piece| meter.push(piece));
    meter
}

fn seen(meter: &StreamMeter) -> (Option<Usage>, Tokens, bool, bool, u64) {
    let usage = meter.usage().copied();
    (usage, meter.output_total(), meter.finished(), meter.at_boundary(), meter.unreadable())
}

#[test]
fn a_chat_stream_is_read_whole() {
    let meter = metered(Api::ChatCompletions, &[CHAT.as_bytes()]);
    let usage = *meter.usage().unwrap();
    assert_eq!((usage.input, usage.output), (Tokens::new(9), Tokens::new(5)));
    assert_eq!(meter.output_total(), Tokens::new(5));
    assert_eq!((meter.identity().id.as_str(), meter.identity().choices), ("chatcmpl-1", 2));
    assert!(meter.finished() && meter.at_boundary());
}

#[test]
fn a_summary_of_reasoning_is_told_from_the_answer() {
    let event = |kind: &str, delta: &str| {
        format!("data: {{\"type\":\"response.{kind}.delta\",\"delta\":\"{delta}\"}}\n\n")
    };
    let summary = event("reasoning_summary_text", "thinking of two words");
    let meter = metered(Api::Responses, &[summary.as_bytes(), event("output_text", "two words").as_bytes()]);
    assert_eq!((meter.answer_total().get(), meter.answer_bytes()), (2, 9));
    assert_eq!(meter.output_total().get(), 6);
}

#[test]
fn all_that_the_model_writes_counts_before_its_usage_comes() {
    let counted = |delta: &str| {
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        metered(Api::ChatCompletions, &[event.as_bytes()]).output_total().get()
    };
    let custom =
        r#"{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"sh","input":"one two three"}}]}"#;
    assert_eq!(counted(custom), counted(r#"{"content":"shone two three"}"#));
    // Half a second of speech: 12,000 samples of two bytes, in base64.
    let speech =
        format!(r#"{{"audio":{{"id":"a","data":"{}","transcript":"one two"}}}}"#, "A".repeat(32_000));
    assert_eq!(counted(&speech), 10 + counted(r#"{"content":"one two"}"#));
}

#[test]
fn what_is_too_long_to_be_counted_is_known_to_be_missing() {
    let long = "1".repeat(LONGEST_LINE);
    // What arrives in one piece need not be held.
    let whole = |api, event: &str| {
        let (start, rest) = event.as_bytes().split_at(20);
        assert!(metered(api, &[event.as_bytes()]).is_counted_whole());
        metered(api, &[start, rest]).is_counted_whole()
    };
    let chunk =
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"Hello\"}},\"logprobs\":{long}}}]}}\n\n");
    assert!(!whole(Api::ChatCompletions, &chunk));
    let event = |kind: &str| {
        whole(Api::Responses, &format!("data: {{\"type\":\"response.{kind}\",\"logprobs\":{long}}}\n\n"))
    };
    assert!(!event("output_text.delta"));
    assert!(event("created") && event("output_text.done"), "they repeat what is known");
}

#[test]
fn a_long_comment_is_one_line_whatever_it_says() {
    let comment = [b": ".as_slice(), &[b'-'; LONGEST_LINE]].concat();
    let mut meter = metered(Api::ChatCompletions, &[&comment, b"data: {\"usage\":{\"prompt_tokens\":1}}\n"]);
    assert_eq!((meter.usage(), meter.at_boundary()), (None, false));
    meter.push(&comment);
    meter.push(b"\n");
    assert!(!meter.at_boundary(), "a line's end is no empty line");
    meter.push(b"\n");
    assert!(meter.at_boundary());
}

#[test]
fn a_responses_stream_is_read_whole() {
    let meter = metered(Api::Responses, &[RESPONSES.as_bytes()]);
    let usage = *meter.usage().unwrap();
    assert_eq!((usage.input, usage.output), (Tokens::new(3), Tokens::new(2)));
    assert_eq!(meter.output_total(), Tokens::new(2));
    assert_eq!((meter.identity().id.as_str(), meter.identity().sequence_number), ("resp_1", 2));
    assert!(meter.finished());
}

#[test]
fn a_terminal_event_of_any_size_is_scanned_without_being_held() {
    let text = "lorem ipsum ".repeat(50_000);
    let event = format!(
        "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],\
         \"usage\":{{\"input_tokens\":3,\"output_tokens\":9}}}}}}\n\n"
    );
    for size in [1, 7, 4096, event.len()] {
        let mut meter = StreamMeter::new(Api::Responses, Encoding::O200k);
        for piece in event.as_bytes().chunks(size) {
            meter.push(piece);
            assert!(meter.line.len() <= LONGEST_LINE);
        }
        assert_eq!(meter.usage().unwrap().output, Tokens::new(9), "in pieces of {size}");
        assert!(meter.finished() && meter.at_boundary());
    }
}

#[test]
fn what_is_not_understood_is_counted_and_passed_over() {
    let meter = metered(
        Api::ChatCompletions,
        &[
            b": comment\n\nid: 1\ndata: {broken\n\ndata: {\"usage\":{\"prompt_tokens\":-1}}\n\n",
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n",
        ],
    );
    assert_eq!(seen(&meter), (None, Tokens::new(1), false, true, 2));
}

#[test]
fn the_middle_of_an_event_is_no_boundary() {
    for pieces in
        [&[&b"\r\n"[..], b"\r\n"][..], &[b"\r", b"\n", b"\r", b"\n"], &[b"\n", b"\n"], &[b"\r", b"\r"]]
    {
        let mut meter = metered(Api::ChatCompletions, &[b"data: {\"choices\":[]}"]);
        assert!(!meter.at_boundary());
        let (last, first) = pieces.split_last().unwrap();
        first.iter().for_each(|piece| meter.push(piece));
        // A carriage return ends the empty line, whether or not a line feed follows.
        assert_eq!(meter.at_boundary(), pieces.len() == 4, "{pieces:?}");
        meter.push(last);
        assert!(meter.at_boundary());
    }
}

#[test]
fn reading_stops_where_an_event_ends() {
    for (framing, end) in [("\n", 2), ("\r\n", 3), ("\r", 2)] {
        let event = "event: a\ndata: {\"choices\":[]}\n\n".replace('\n', framing);
        let two = event.repeat(2);
        let expected = event.trim_end().len() + end;
        for cut in 0..event.trim_end().len() {
            let mut meter = metered(Api::ChatCompletions, &[&two.as_bytes()[..cut]]);
            assert_eq!(meter.push_to_boundary(&two.as_bytes()[cut..]), Some(expected - cut), "{framing:?}");
            assert!(meter.at_boundary());
        }
    }
    assert_eq!(metered(Api::ChatCompletions, &[b"data"]).push_to_boundary(b": {}\n"), None);
}

proptest! {
    #[test]
    fn any_split_in_any_framing_is_read_alike(
        cuts in prop::collection::vec(0_usize..2000, 0..12), responses in any::<bool>(),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let (api, text) = if responses { (Api::Responses, RESPONSES) } else { (Api::ChatCompletions, CHAT) };
        let text = text.replace('\n', line_end);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % text.len()).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut done = 0;
        for cut in cuts {
            pieces.push(&text.as_bytes()[done..cut]);
            done = cut;
        }
        pieces.push(&text.as_bytes()[done..]);
        let whole = seen(&metered(api, &[text.as_bytes()]));
        prop_assert_eq!(seen(&metered(api, &pieces)), whole);
    }

    #[test]
    fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        for api in [Api::ChatCompletions, Api::Responses] {
            let mut meter = StreamMeter::new(api, Encoding::O200k);
            pieces.iter().for_each(|piece| meter.push(piece));
            let _total = meter.output_total();
        }
    }
}
