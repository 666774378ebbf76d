//! Answers made once, for benchmarks: what is measured shall be the proxy.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::answer::Heading;
use super::behaviour::Behaviour;
use super::call::{Call, Rules};
use super::model::answer;
use super::route::{Api, Version};

/// One answer for each API.
#[derive(Debug)]
pub(crate) struct Fixed {
    answers: Vec<(Api, Bytes, u64, u64)>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    stream: bool,
}

impl Fixed {
    pub(crate) fn new(behaviour: &Behaviour) -> Self {
        let request = json!({"messages": [], "input": "a", "prompt": "a", "dimensions": 64});
        let behaviour =
            Behaviour { prompt_tokens: behaviour.prompt_tokens.or(Some(16)), ..behaviour.clone() };
        let apis = [Api::Chat, Api::Completions, Api::Embeddings, Api::Responses];
        let answers = apis.into_iter().filter_map(|api| {
            let call =
                Call::read(Rules { api, version: Version::V1, model: None }, request.clone(), &behaviour)
                    .ok()?;
            let heading = Heading::new("0".repeat(32), &call, &behaviour);
            let bytes = Bytes::from(answer(&call, &heading).to_string());
            Some((api, bytes, call.prompt_tokens, call.output_tokens()))
        });
        Self { answers: answers.collect() }
    }

    /// The answer with its input and output tokens, unless the call wants a stream.
    pub(crate) fn answer(&self, api: Api, body: &Bytes) -> Option<(Bytes, u64, u64)> {
        let Envelope { stream } = serde_json::from_slice(body).ok()?;
        let (_, bytes, input, output) = self.answers.iter().find(|(of, ..)| *of == api)?;
        (!stream).then(|| (bytes.clone(), *input, *output))
    }
}
