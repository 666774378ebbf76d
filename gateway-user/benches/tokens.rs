//! What it costs to say how many tokens a prompt or an answer has.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway_user::api::Api;
use gateway_user::model::{Encoding, Model};
use gateway_user::names::ModelName;
use gateway_user::tokens::{OutputCounter, byte_bound, count_text, estimate_prompt, preload};

const PROSE: &str =
    "The gateway counts what passes: a caller that hangs up pays for the prompt and every token seen. ";

fn bytes(text: &str) -> Throughput {
    Throughput::Bytes(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

fn prompts(criterion: &mut Criterion) {
    preload(&[Encoding::O200k]);
    let Ok(model) = ModelName::new("gpt-4o").map(|name| Model::of(&name)) else { return };
    let message = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let long = format!(r#"{{"messages":[{}]}}"#, message(&PROSE.repeat(100)));
    let many = format!(r#"{{"messages":[{}]}}"#, vec![message("and then?"); 250].join(","));

    let mut group = criterion.benchmark_group("prompt");
    for (name, body) in [("one_message_of_10_kb", &long), ("many_messages_of_10_kb", &many)] {
        group.throughput(bytes(body));
        group.bench_function(format!("byte_bound/{name}"), |bench| {
            bench.iter(|| byte_bound(black_box(body.as_bytes())));
        });
        group.bench_function(format!("estimate/{name}"), |bench| {
            bench.iter(|| estimate_prompt(Api::ChatCompletions, &model, black_box(body.as_bytes())));
        });
    }
    group.finish();
}

fn texts(criterion: &mut Criterion) {
    preload(&[Encoding::O200k]);
    let mut group = criterion.benchmark_group("count_text");
    for (name, text) in [
        ("prose", PROSE.repeat(2_000)),
        ("one_letter", "a".repeat(200_000)),
        ("spaces", " ".repeat(200_000)),
        ("ideographs", "漢".repeat(66_666)),
    ] {
        group.throughput(bytes(&text));
        group.bench_function(name, |bench| bench.iter(|| count_text(Encoding::O200k, black_box(&text))));
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    preload(&[Encoding::O200k]);
    let answer = PROSE.repeat(100);
    let mut group = criterion.benchmark_group("answer");
    group.throughput(bytes(&answer));
    group.bench_function("in_words", |bench| {
        bench.iter(|| {
            let mut counter = OutputCounter::new(Encoding::O200k);
            for word in answer.split_inclusive(' ') {
                counter.push(word);
            }
            counter.total()
        });
    });
    group.finish();
}

criterion_group!(benches, prompts, texts, answers);
criterion_main!(benches);
