//! The proof, on a gateway that runs somewhere, that streaming streams: one plain call, then one streamed one whose
//! chunks are timed as they come.
//!
//! [`pace`] holds what counts as streaming.

mod caller;
mod error;
mod events;
pub mod pace;
mod trust;

use std::time::{Duration, Instant};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::config::Endpoint;
use crate::secret::SubscriptionKey;
use caller::{ANSWER, Caller, in_time, speaks_tls};
use events::{Event, Events};
use pace::Pace;

pub use error::SmokeError;
pub use events::Usage;
pub use trust::Trust;

/// Which gateway is put to the proof, and how it is called.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Where it is.
    pub endpoint: Endpoint,
    /// A tenant's key.
    pub key: SubscriptionKey,
    /// A deployment for chat completions; by default the tenant's first one that answers them.
    pub deployment: Option<String>,
    /// Whose certificate it may have.
    pub trust: Trust,
}

/// What happens during the proof, as it happens.
#[derive(Debug)]
pub enum Step<'a> {
    /// The plain call has been answered.
    Plain {
        /// The deployment that answered.
        deployment: &'a str,
        /// The answer's text.
        text: &'a str,
        /// What it used.
        usage: Option<Usage>,
        /// Of the response.
        headers: &'a HeaderMap,
        /// From the request to the answer's last byte.
        took: Duration,
    },
    /// The head of the streamed answer has come.
    Head {
        /// Of the response.
        headers: &'a HeaderMap,
        /// Since the request.
        at: Duration,
    },
    /// A chunk with text has come.
    Chunk {
        /// The text.
        text: &'a str,
        /// Since the request.
        at: Duration,
        /// Since the chunk before.
        gap: Duration,
    },
    /// The stream tells what the call used.
    Usage(Usage),
}

/// Puts a gateway to the proof, and gives the pace at which the answer came.
///
/// # Errors
/// When there is no answer to judge, or `show` fails.
pub async fn prove(
    subject: Subject,
    show: impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<Pace, SmokeError> {
    let endpoint = subject.endpoint.clone();
    let result = prove_on(subject, show).await;
    let is_unintelligible = match &result {
        Err(SmokeError::Http(_)) => true,
        Err(SmokeError::Refused { status, .. }) => *status == StatusCode::BAD_REQUEST,
        _ => false,
    };
    if is_unintelligible && !endpoint.tls() && speaks_tls(&endpoint).await {
        return Err(SmokeError::PlainToTls { authority: endpoint.authority().to_string() });
    }
    result
}

async fn prove_on(
    subject: Subject,
    mut show: impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<Pace, SmokeError> {
    let Subject { endpoint, key, deployment, trust } = subject;
    let mut caller = Caller::connect(endpoint, &key, &trust).await?;
    let deployment = match deployment {
        Some(deployment) => {
            plain(&mut caller, &deployment, &mut show).await?;
            deployment
        }
        None => first_that_chats(&mut caller, &mut show).await?,
    };
    streamed(&mut caller, &deployment, &mut show).await
}

/// Makes the plain call to each of the tenant's deployments until one answers it.
async fn first_that_chats(
    caller: &mut Caller,
    show: &mut impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<String, SmokeError> {
    let (models, _) = caller.ask(Method::GET, MODELS, None).await?;
    let models = models.body().pointer("/data").and_then(Value::as_array);
    let names: Vec<&str> = models.into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
    let mut last = None;
    for &name in names.iter().take(MOST_TRIED) {
        match plain(caller, name, show).await {
            Ok(()) => return Ok(name.to_owned()),
            // Made for something else, such as embeddings.
            Err(refused @ SmokeError::Refused { status, .. }) if matches!(status.as_u16(), 400 | 404) => {
                last = Some(refused);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.map_or(SmokeError::NoDeployment, |last| SmokeError::NoChat {
        names: names.join(", "),
        last: Box::new(last),
    }))
}

async fn plain(
    caller: &mut Caller,
    deployment: &str,
    show: &mut impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<(), SmokeError> {
    let body = json!({"model": deployment, "messages": [{"role": "user", "content": GREETING}]});
    let (answer, sent) = caller.ask(Method::POST, CHAT, Some(&body)).await?;
    let took = sent.elapsed();
    let text =
        answer.body().pointer("/choices/0/message/content").and_then(Value::as_str).unwrap_or_default();
    let usage = answer.body().get("usage").and_then(|usage| serde_json::from_value(usage.clone()).ok());
    Ok(show(Step::Plain { deployment, text, usage, headers: answer.headers(), took })?)
}

async fn streamed(
    caller: &mut Caller,
    deployment: &str,
    show: &mut impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<Pace, SmokeError> {
    let body = json!({
        "model": deployment,
        "messages": [{"role": "user", "content": TASK}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let (response, sent) = caller.send(Method::POST, CHAT, Some(&body)).await?;
    show(Step::Head { headers: response.headers(), at: sent.elapsed() })?;
    refuse_no_stream(response.headers())?;
    read(response, sent, show).await
}

/// A stream that a proxy has compressed or replaced is not what the caller was to get.
fn refuse_no_stream(headers: &HeaderMap) -> Result<(), SmokeError> {
    let value = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(encoding) = value(CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(SmokeError::NotAStream(format!(
            "it is compressed (content-encoding: {encoding}), though nobody asked for that; \
             a proxy that compresses also gathers what it compresses"
        )));
    }
    match value(CONTENT_TYPE) {
        Some(kind) if kind.starts_with("text/event-stream") => Ok(()),
        kind => Err(SmokeError::NotAStream(format!(
            "its content-type is {}",
            kind.as_deref().unwrap_or("missing")
        ))),
    }
}

async fn read(
    response: Response<Incoming>,
    sent: Instant,
    show: &mut impl FnMut(Step<'_>) -> std::io::Result<()>,
) -> Result<Pace, SmokeError> {
    let mut body = response.into_body();
    let (mut events, mut pace, mut done) = (Events::default(), Pace::default(), false);
    while let Some(frame) = in_time("the next chunk", ANSWER, body.frame()).await? {
        let Ok(data) = frame?.into_data() else { continue };
        // All that one read brought has come at the same time.
        let at = sent.elapsed();
        for event in events.push(&data)? {
            match event {
                Event::Text(text) => {
                    let gap = at.saturating_sub(pace.last().unwrap_or(at));
                    pace.chunk(at);
                    show(Step::Chunk { text: &text, at, gap })?;
                }
                Event::Usage(usage) => show(Step::Usage(usage))?,
                Event::Error(message) => {
                    return Err(SmokeError::NotAStream(format!("it ends with an error: {message}")));
                }
                Event::Done => done = true,
            }
        }
        if pace.chunks() > MOST_CHUNKS {
            return Err(SmokeError::NotAStream(format!("it goes on after {MOST_CHUNKS} chunks")));
        }
    }
    if done { Ok(pace) } else { Err(SmokeError::NotAStream("it breaks off without [DONE]".to_owned())) }
}

/// Names no API version, so that no version can be too old for what is asked.
const CHAT: &str = "/openai/v1/chat/completions";
const MODELS: &str = "/openai/v1/models";
const GREETING: &str = "Say hello in five words.";
/// Some two hundred tokens: long enough for a pace, short enough to wait for.
const TASK: &str = "Count from one to sixty in English words, separated by commas, and say nothing else.";
const MOST_CHUNKS: usize = 10_000;
const MOST_TRIED: usize = 8;
