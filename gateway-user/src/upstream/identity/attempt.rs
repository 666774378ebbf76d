//! One attempt at a token at a time.
//!
//! The library tries again by itself, for 72 seconds with instance metadata, and says nothing meanwhile. Here a failed
//! attempt ends the whole, so that it is told at once; when to try again is for [`keep_fresh`](super::keep_fresh).

use std::sync::Arc;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};

/// Makes of every failure one that the library does not try again.
#[derive(Debug)]
pub(super) struct OneAttempt;

#[expect(
    elided_lifetimes_in_paths,
    reason = "the trait's own signature, which the macro takes by the letter"
)]
#[async_trait::async_trait]
impl Policy for OneAttempt {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let Some((first, rest)) = next.split_first() else {
            return Err(Error::with_message(ErrorKind::Other, "there is no transport"));
        };
        // Errors of the kinds `Io` and `Connection` would be tried again, and so would answers by their status.
        let response =
            first.send(context, request, rest).await.map_err(|error| Error::new(ErrorKind::Other, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let response = response.try_into_raw_response().await?;
        let kind =
            ErrorKind::HttpResponse { status, error_code: None, raw_response: Some(Box::new(response)) };
        Err(Error::with_message(kind, format!("the answer is {status}")))
    }
}
