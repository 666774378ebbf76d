//! A prompt: what it is estimated to cost is never more than the bound on which it may be admitted unread.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gateway_user::api::Api;
use gateway_user::model::Model;
use gateway_user::names::ModelName;
use gateway_user::tokens::{bound_prompt, byte_bound, estimate_prompt, may_hold_file};

const MODELS: [&str; 4] = ["gpt-4o-mini", "gpt-4", "gpt-5-nano", "text-embedding-3-small"];
const APIS: [Api; 4] = [Api::ChatCompletions, Api::Completions, Api::Embeddings, Api::Responses];

pub(crate) fn run(data: &[u8]) {
    let Some(([how], rest)) = crate::split(data) else { return };
    let choice = usize::from(how);
    let (Some(api), Some(model)) = (APIS.get(choice % 4), MODELS.get(choice / 4 % 4)) else { return };
    let Ok(model) = ModelName::new(model) else { return };
    let model = Model::of(&model);
    // Above that, the bytes are an attachment's.
    if how & 0x80 == 0 {
        let estimate = estimate_prompt(*api, &model, rest);
        let most = bound_prompt(*api, &model, rest);
        assert!(estimate.tokens <= most.tokens && estimate.basis == most.basis, "{estimate:?} of {most:?}");
        if let Some(bound) = byte_bound(rest) {
            assert!(
                estimate.tokens <= bound,
                "{estimate:?} of {bound:?}: {:?}",
                String::from_utf8_lossy(rest)
            );
        }
    } else {
        attached(&model, choice / 16 % 4, rest);
    }
}

/// An image, a recording in either format, or a file.
fn attached(model: &Model, kind: usize, bytes: &[u8]) {
    let data = STANDARD.encode(bytes);
    let (part, most) = match kind {
        0 => {
            let url = format!("data:image/png;base64,{data}");
            (format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#), MOST_FOR_AN_IMAGE)
        }
        3 => (format!(r#"{{"type":"file","file":{{"file_data":"{data}"}}}}"#), u64::MAX),
        kind => {
            let format = if kind == 1 { "wav" } else { "mp3" };
            let most = bytes.len() as u64 + MOST_AROUND_A_RECORDING;
            (
                format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"{format}"}}}}"#),
                most,
            )
        }
    };
    let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
    assert_eq!(byte_bound(body.as_bytes()), None, "an attachment's bytes are no bound");
    assert_eq!(may_hold_file(body.as_bytes()), kind == 3);
    let estimate = estimate_prompt(Api::ChatCompletions, model, body.as_bytes());
    assert!(estimate.tokens.get() < most, "{estimate:?}");
}

/// Images are scaled down before they are counted, so that none costs as much, whatever size it claims to have.
const MOST_FOR_AN_IMAGE: u64 = 100_000;

/// No frame that is heard has fewer bytes than tokens; the message around it has a few.
const MOST_AROUND_A_RECORDING: u64 = 32;
