//! Embeddings, as lists of numbers or in base64, whichever was asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Heading;
use super::call::Call;

/// The answer; there are no streams of embeddings.
pub(crate) fn whole(call: &Call, heading: &Heading) -> Value {
    let dimensions =
        call.body.get("dimensions").and_then(Value::as_u64).unwrap_or(DIMENSIONS).min(MAX_DIMENSIONS);
    let base64 = call.body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data = (0..inputs(&call.body)).map(|index| {
        // Unit vectors, a different one for each input.
        let vector = (0..dimensions).map(|at| if at == index % dimensions.max(1) { 1.0_f32 } else { 0.0 });
        let embedding = if base64 {
            Value::from(STANDARD.encode(vector.flat_map(f32::to_le_bytes).collect::<Vec<_>>()))
        } else {
            vector.collect()
        };
        json!({"embedding": embedding, "index": index, "object": "embedding"})
    });
    let mut answer = json!({"data": data.collect::<Vec<_>>(), "model": heading.model, "object": "list"});
    if let Some(usage) = heading.usage {
        answer["usage"] = json!({"prompt_tokens": usage.input, "total_tokens": usage.input});
    }
    answer
}

fn inputs(body: &Value) -> u64 {
    match body.get("input") {
        // A list of numbers is one input, already encoded.
        Some(Value::Array(items)) if !items.iter().any(Value::is_number) => items.len() as u64,
        _ => 1,
    }
}

const DIMENSIONS: u64 = 1536;
const MAX_DIMENSIONS: u64 = 3072;
