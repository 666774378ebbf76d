//! Failures of a credential that is asked instead of Azure's.

use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{RawResponse, StatusCode};
use parking_lot::Mutex;

use super::reason::explain;
use super::*;
use crate::metrics;

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// Gives what it holds, the last first; waits for ever when it holds nothing.
#[derive(Debug, Default)]
struct Scripted(Mutex<Vec<azure_core::Result<AccessToken>>>);

#[async_trait::async_trait]
impl TokenCredential for Scripted {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let next = self.0.lock().pop();
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn token() -> AccessToken {
    AccessToken::new(
        "token".to_owned(),
        azure_core::time::OffsetDateTime::now_utc() + Duration::from_secs(3600),
    )
}

/// As the library wraps what happened.
fn wrapped(inner: Error) -> Error {
    let inner = inner.with_context("non-transport error occurred which will not be retried");
    Error::with_error(
        ErrorKind::Credential,
        inner,
        "ManagedIdentityCredential authentication failed. It did not work.\nTo troubleshoot, visit https://aka.ms/x",
    )
}

fn answered(status: StatusCode, body: &'static str) -> Error {
    let raw_response = Some(Box::new(RawResponse::from_bytes(status, Headers::new(), body)));
    let kind = ErrorKind::HttpResponse { status, error_code: None, raw_response };
    wrapped(Error::with_message(kind, "the answer is that"))
}

fn unreachable() -> Error {
    let system = std::io::Error::other("Network is unreachable (os error 101)");
    let sending = Error::with_error(ErrorKind::Connection, system, "failed to execute `reqwest` request");
    wrapped(Error::new(ErrorKind::Other, sending))
}

/// A slot, and what its attempts need.
fn slot(source: Source, answers: Vec<azure_core::Result<AccessToken>>) -> (Arc<TokenSlot>, Arc<Credential>) {
    let (_registry, metrics) = metrics::registry();
    let credential = Credential::of(Arc::new(Scripted(Mutex::new(answers))), source);
    (Arc::new(TokenSlot::new(SCOPE, source, &metrics)), credential)
}

#[tokio::test]
async fn a_failure_is_shown_until_a_token_comes() {
    let (slot, credential) = slot(Source::VirtualMachine, vec![Ok(token()), Err(unreachable())]);
    let mut outage = Outage::default();
    assert!(slot.problem().unwrap().contains("has not come yet"));

    assert!(!renew(&slot, &credential, &mut outage, PATIENCE).await);
    let problem = slot.problem().unwrap();
    assert!(problem.contains("no managed identity endpoint"), "{problem}");
    assert!(problem.contains("Network is unreachable (os error 101)"), "{problem}");
    assert_eq!((slot.up.get(), slot.header(0)), (0, None));
    assert!(outage.said.is_some());

    assert!(renew(&slot, &credential, &mut outage, PATIENCE).await);
    assert_eq!((slot.up.get(), slot.problem()), (1, None));
    assert!(slot.header(0).is_some() && slot.expiry.get() > 0);
    assert!(outage.said.is_none());
}

#[tokio::test]
async fn a_token_that_does_not_come_is_told_of_and_given_up() {
    let (slot, credential) = slot(Source::Workload, Vec::new());
    let mut outage = Outage::default();
    let patience = Patience { slow: Duration::ZERO, given_up: Duration::ZERO };
    assert!(!renew(&slot, &credential, &mut outage, patience).await);
    let problem = slot.problem().unwrap();
    assert!(problem.contains("Entra") && problem.ends_with("has not answered for 0 seconds"), "{problem}");
}

#[test]
fn a_failed_renewal_takes_nothing_from_the_token_in_use() {
    let (slot, _credential) = slot(Source::Workload, Vec::new());
    slot.fill(HeaderValue::from_static("Bearer x"), 100);
    slot.fail("why");
    assert!(slot.header(99).is_some() && slot.header(100).is_none());
    assert_eq!(slot.problem().unwrap().as_str(), "why");
}

#[test]
fn the_same_failure_is_logged_once_a_minute_and_another_at_once() {
    let (mut outage, start) = (Outage::default(), Instant::now());
    let mut says = |reason, seconds| outage.is_worth_a_line(reason, start + Duration::from_secs(seconds));
    assert!(says("a", 0));
    assert!(!says("a", 1) && !says("a", 59));
    assert!(says("a", 60));
    assert!(says("b", 61));
    assert!(!says("b", 100));
    assert!(outage.end() && !outage.end());
    assert!(outage.is_worth_a_line("b", start));
}

#[test]
fn every_known_failure_names_its_remedy() {
    let of = |source, client_id, error: &Error| explain(source, client_id, &Cause::of(error));
    let not_found = answered(
        StatusCode::BadRequest,
        r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
    );
    let text = of(Source::VirtualMachine, None, &not_found);
    assert!(text.contains("no identity of its own (Identity not found)"), "{text}");
    let text = of(Source::VirtualMachine, Some("11-22"), &not_found);
    assert!(text.contains("11-22") && text.contains("identity.client_id"), "{text}");
    let several = answered(
        StatusCode::BadRequest,
        r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify"}"#,
    );
    let text = of(Source::VirtualMachine, None, &several);
    assert!(text.contains("say which one with identity.client_id"), "{text}");

    let no_federation = answered(
        StatusCode::Unauthorized,
        r#"{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record found.\r\nTrace ID: x"}"#,
    );
    let text = of(Source::Workload, None, &no_federation);
    assert!(text.starts_with("the identity has no federated credential"), "{text}");
    assert!(!text.contains("Trace"), "{text}");

    let unknown = answered(StatusCode::ServiceUnavailable, "<html>");
    assert_eq!(
        of(Source::AppService, None, &unknown),
        "the endpoint that IDENTITY_ENDPOINT names answers 503: <html>"
    );

    let signed_out = wrapped(Error::with_message(ErrorKind::Credential, "x"));
    assert_eq!(of(Source::Cli, None, &signed_out), "It did not work");
    let cli = |text: &'static str| {
        let text = format!("AzureCliCredential authentication failed. {text}");
        of(Source::Cli, None, &Error::with_message(ErrorKind::Credential, text))
    };
    assert!(cli("ERROR: Please run 'az login' to setup account.").contains("run `az login`"));
    assert_eq!(cli("az not found on PATH"), "the Azure CLI, `az`, is not installed or not on the PATH");
}
