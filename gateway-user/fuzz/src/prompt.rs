//! A prompt: what it is estimated to cost is never more than the bound on which it may be admitted unread.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gateway_user::api::Api;
use gateway_user::model::Model;
use gateway_user::names::ModelName;
use gateway_user::tokens::{byte_bound, estimate_prompt};

const MODELS: [&str; 4] = ["gpt-4o-mini", "gpt-4", "o3", "text-embedding-3-small"];
const APIS: [Api; 4] = [Api::ChatCompletions, Api::Completions, Api::Embeddings, Api::Responses];

pub(crate) fn run(data: &[u8]) {
    let Some(([how], rest)) = crate::split(data) else { return };
    let choice = usize::from(how);
    let (Some(api), Some(model)) = (APIS.get(choice % 4), MODELS.get(choice / 4 % 4)) else { return };
    let Ok(model) = ModelName::new(model) else { return };
    let model = Model::of(&model);
    // Above that, the bytes are an image's.
    if how & 0x80 == 0 {
        let estimate = estimate_prompt(*api, &model, rest);
        if let Some(bound) = byte_bound(rest) {
            assert!(
                estimate.tokens <= bound,
                "{estimate:?} of {bound:?}: {:?}",
                String::from_utf8_lossy(rest)
            );
        }
    } else {
        let image = STANDARD.encode(rest);
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}}]}}"#
        );
        assert_eq!(byte_bound(body.as_bytes()), None, "an image's bytes are no bound");
        let estimate = estimate_prompt(Api::ChatCompletions, &model, body.as_bytes());
        assert!(estimate.tokens.get() < MOST_FOR_AN_IMAGE, "{estimate:?}");
    }
}

/// Images are scaled down before they are counted, so that none costs as much, whatever size it claims to have.
const MOST_FOR_AN_IMAGE: u64 = 100_000;
