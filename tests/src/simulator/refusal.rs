//! What Azure answers instead of an answer: status, headers and body as documented.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::quota::Standing;
use super::route::{Api, Version};

/// An error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: Value,
    retry_after: Option<Duration>,
    standing: Option<Standing>,
}

impl Refusal {
    /// 400: the body cannot be served.
    pub(crate) fn invalid(
        param: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        let message: String = message.into();
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}),
        )
    }

    /// 400: an argument that the version of the API, or the model, has never heard of.
    pub(crate) fn unrecognized(argument: &str) -> Self {
        Self::unspecific(format!("Unrecognized request argument supplied: {argument}"))
    }

    /// 400: a number, or a limit of the answer in Responses, that is too large.
    pub(crate) fn above(key: &'static str, most: u64, given: u64) -> Self {
        let message = format!(
            "Invalid '{key}': integer above maximum value. Expected a value <= {most}, but got {given} instead."
        );
        Self::invalid(key, Some("integer_above_max_value"), message)
    }

    /// 400: an array that is too long.
    pub(crate) fn too_many(key: &'static str, most: usize, given: usize) -> Self {
        let message = format!(
            "Invalid '{key}': array too long. Expected an array with maximum length {most}, but got an array with length {given} instead."
        );
        Self::invalid(key, Some("array_above_max_length"), message)
    }

    /// 400: a limit of the answer above the model's. It is called `max_tokens`, whichever of the two names the call
    /// had.
    pub(crate) fn limit_too_large(given: u64, most: u64) -> Self {
        let message = format!(
            "max_tokens is too large: {given}. This model supports at most {most} completion tokens, whereas you provided {given}."
        );
        Self::invalid("max_tokens", Some("invalid_value"), message)
    }

    /// 400: a prompt that the model's window does not hold, or not together with the limit of the answer.
    pub(crate) fn too_long(api: Api, most: u64, prompt: u64, limit: u64) -> Self {
        let total = prompt.saturating_add(limit);
        let most = format!("This model's maximum context length is {most} tokens");
        match api {
            Api::Responses => Self::invalid(
                "input",
                Some("context_length_exceeded"),
                "Your input exceeds the context window of this model. Please adjust your input and try again.",
            ),
            Api::Chat if limit == 0 => Self::invalid(
                "messages",
                Some("context_length_exceeded"),
                format!(
                    "{most}. However, your messages resulted in {prompt} tokens. Please reduce the length of the messages."
                ),
            ),
            Api::Chat => Self::invalid(
                "messages",
                Some("context_length_exceeded"),
                format!(
                    "{most}. However, you requested {total} tokens ({prompt} in the messages, {limit} in the completion). Please reduce the length of the messages or completion."
                ),
            ),
            Api::Completions | Api::Embeddings => Self::unspecific(format!(
                "{most}, however you requested {total} tokens ({prompt} in your prompt; {limit} for the completion). Please reduce your prompt; or completion length."
            )),
        }
    }

    /// 400: a response to go on from that is not stored, or no longer.
    pub(crate) fn unknown_response(id: &str) -> Self {
        let message = format!("Previous response with id '{id}' not found.");
        Self::invalid("previous_response_id", Some("previous_response_not_found"), message)
    }

    /// 400: the body is no JSON.
    pub(crate) fn not_json(problem: &serde_json::Error) -> Self {
        Self::unspecific(format!("We could not parse the JSON body of your request: {problem}"))
    }

    /// 401: a key, or a token that is missing, wrong or over.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, json!({"error": {"code": "401", "message": message}}))
    }

    /// 401: the token is valid, and its principal lacks a role such as `Cognitive Services OpenAI User`.
    pub(crate) fn missing_role(api: Api, version: Version) -> Self {
        let message = format!(
            "The principal `{PRINCIPAL}` lacks the required data action `Microsoft.CognitiveServices/accounts/OpenAI/{}` to perform `POST {}` operation.",
            api.data_action(),
            api.template(version)
        );
        Self::new(
            StatusCode::UNAUTHORIZED,
            json!({"error": {"code": "PermissionDenied", "message": message}}),
        )
    }

    /// 404: no such route.
    pub(crate) fn unknown_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, json!({"error": {"code": "404", "message": "Resource not found"}}))
    }

    /// 404: no such deployment.
    pub(crate) fn unknown_deployment() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            json!({"error": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.",
            }}),
        )
    }

    /// 429: the deployment's own limit.
    pub(crate) fn rate_limited(api: Api, retry_after: Duration) -> Self {
        let message = format!(
            "Requests to the {} Operation under Azure OpenAI API have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after {} seconds.",
            api.operation(),
            seconds_up(retry_after)
        );
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            body: json!({"error": {"code": "429", "message": message}}),
            retry_after: Some(retry_after),
            standing: None,
        }
    }

    /// 429: the limit of the deployment in this minute.
    pub(crate) fn over_quota(api: Api, standing: Standing, wait: Duration) -> Self {
        Self { standing: Some(standing), ..Self::rate_limited(api, wait) }
    }

    /// 400: the content filter refused the prompt.
    pub(crate) fn content_filter() -> Self {
        let safe = json!({"filtered": false, "severity": "safe"});
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.",
                "type": null,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {
                        "hate": safe,
                        "jailbreak": {"detected": false, "filtered": false},
                        "self_harm": safe,
                        "sexual": safe,
                        "violence": {"filtered": true, "severity": "high"},
                    },
                },
            }}),
        )
    }

    /// 500 or 503: the service's own trouble.
    pub(crate) fn broken(status: StatusCode) -> Self {
        Self::new(status, server_error())
    }

    /// The response, but for the headers that every response has.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let Self { status, body, retry_after, standing } = self;
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = retry_after {
            let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(delay)));
            headers.insert("retry-after-ms", HeaderValue::from(milliseconds));
        }
        if let Some(standing) = standing {
            standing.add_to(headers);
        }
        response
    }

    /// 400 that names neither the parameter nor a code.
    fn unspecific(message: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}),
        )
    }

    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None, standing: None }
    }
}

/// The service's own trouble, as the body of a 500 and as an event of a stream. Its `code` is null, as in the bodies
/// that Microsoft's page of models and callers' reports show.
pub(crate) fn server_error() -> Value {
    json!({"error": {"message": SERVER_ERROR, "type": "server_error", "param": null, "code": null}})
}

fn seconds_up(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

pub(crate) const SERVER_ERROR: &str =
    "The server had an error while processing your request. Sorry about that!";
/// The object id of the identity that tokens are issued to.
const PRINCIPAL: &str = "00000000-0000-0000-0000-000000000003";
