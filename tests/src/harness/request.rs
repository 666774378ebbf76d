//! Requests that many tests make.

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HeaderName};
use serde_json::{Value, json};

/// A POST with a JSON body and, unless it is empty, the key in `api-key`.
///
/// # Errors
/// When the path or the key cannot be sent.
pub fn post(path: &str, key: &str, body: &Value) -> Result<Request<Bytes>, http::Error> {
    let mut request = Request::post(path).header(CONTENT_TYPE, "application/json");
    if !key.is_empty() {
        request = request.header(HeaderName::from_static("api-key"), key);
    }
    request.body(Bytes::from(body.to_string()))
}

/// A chat call to a deployment, on the older URL shape.
///
/// # Errors
/// When the deployment or the key cannot be sent.
pub fn chat(deployment: &str, key: &str, body: &Value) -> Result<Request<Bytes>, http::Error> {
    let path = format!("/openai/deployments/{deployment}/chat/completions?api-version=2024-10-21");
    post(&path, key, body)
}

/// A chat body in which the user says `text`.
#[must_use]
pub fn user_says(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}
