//! What Azure answers instead of an answer: status, headers and body as documented.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::route::{Api, Version};

/// An error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: Value,
    retry_after: Option<Duration>,
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
        let message = format!("Unrecognized request argument supplied: {argument}");
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}),
        )
    }

    /// 400: the body is no JSON.
    pub(crate) fn not_json(problem: &serde_json::Error) -> Self {
        let message = format!("We could not parse the JSON body of your request: {problem}");
        Self::new(
            StatusCode::BAD_REQUEST,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}),
        )
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
        }
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
        let Self { status, body, retry_after } = self;
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = retry_after {
            let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(delay)));
            headers.insert("retry-after-ms", HeaderValue::from(milliseconds));
        }
        response
    }

    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None }
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
