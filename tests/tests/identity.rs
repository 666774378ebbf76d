//! The identity endpoints, asked by Azure's own library, and by hand where it cannot be pointed at loopback.
//!
//! The library takes its endpoints from the environment of the process, so it is asked in a child process of this test.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests unwrap, and so do their helpers; the child prints to its parent"
)]

use std::process::Command;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, WorkloadIdentityCredential};
use bytes::Bytes;
use gateway_tests::harness::{Client, Reply};
use gateway_tests::simulator::{AUDIENCE, IDENTITY_HEADER, IdentityFault, Options, Simulator};
use http::{Request, StatusCode};

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// Runs one of the tests below that want an environment, and gives what it printed.
fn child(test: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

async fn print_token(credential: &dyn TokenCredential) {
    let token = credential.get_token(&[SCOPE], None).await.unwrap();
    println!("token {}", token.token.secret());
    println!("lifetime {}", (token.expires_on - azure_core::time::OffsetDateTime::now_utc()).whole_seconds());
}

fn printed<'a>(text: &'a str, field: &str) -> &'a str {
    text.lines().find_map(|line| line.trim().strip_prefix(field)).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test]
#[ignore = "needs the environment that the tests of this file give it"]
async fn child_asks_the_managed_identity() {
    print_token(&*ManagedIdentityCredential::new(None).unwrap()).await;
}

#[tokio::test]
#[ignore = "needs the environment that the tests of this file give it"]
async fn child_asks_the_workload_identity() {
    print_token(&*WorkloadIdentityCredential::new(None).unwrap()).await;
}

#[test]
fn a_managed_identity_gets_a_token_that_azure_takes() {
    let azure =
        Simulator::start(Options { token_lifetime: Duration::from_secs(600), ..Options::default() }).unwrap();
    let endpoint = azure.identity_endpoint();
    let environment = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", IDENTITY_HEADER)];
    let (succeeded, text) = child("child_asks_the_managed_identity", &environment);
    assert!(succeeded, "{text}");
    assert_eq!(azure.tokens(), [printed(&text, "token ")]);
    let lifetime: u64 = printed(&text, "lifetime ").parse().unwrap();
    assert!((500..=600).contains(&lifetime), "{lifetime}");
    let asked = azure.identity_requests().pop().unwrap();
    assert!(
        asked.target.contains("api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com")
    );
}

#[test]
fn a_managed_identity_without_the_secret_is_refused() {
    let azure = Simulator::start(Options::default()).unwrap();
    let endpoint = azure.identity_endpoint();
    let environment = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "wrong")];
    let (succeeded, _) = child("child_asks_the_managed_identity", &environment);
    assert!(!succeeded);
    assert_eq!(azure.tokens_issued(), 0);
}

#[test]
fn a_workload_identity_gets_a_token_from_entra_over_tls() {
    let azure = Simulator::start(Options { tls: true, ..Options::default() }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (roots, assertion) = (directory.path().join("ca.pem"), directory.path().join("assertion"));
    std::fs::write(&roots, azure.authority().unwrap().pem()).unwrap();
    std::fs::write(&assertion, "a.b.c").unwrap();
    let host = azure.authority_host().unwrap();
    let environment = [
        ("AZURE_AUTHORITY_HOST", host.as_str()),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", assertion.to_str().unwrap()),
        ("SSL_CERT_FILE", roots.to_str().unwrap()),
    ];
    let (succeeded, text) = child("child_asks_the_workload_identity", &environment);
    assert!(succeeded, "{text}");
    assert_eq!(azure.tokens(), [printed(&text, "token ")]);
    let asked = azure.identity_requests().pop().unwrap();
    assert_eq!(asked.target, "/tenant/oauth2/v2.0/token");
    assert!(asked.contains("client_assertion=a.b.c"));
}

async fn ask_instance_metadata(azure: &Simulator, metadata: &str) -> Reply {
    let target = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={AUDIENCE}");
    let request = Request::get(target).header("metadata", metadata).body(Bytes::new()).unwrap();
    Client::plain(azure.address()).await.unwrap().send(request).await.unwrap()
}

#[tokio::test]
async fn instance_metadata_answers_in_strings_and_only_with_its_header() {
    let azure = Simulator::start(Options::default()).unwrap();
    assert_eq!(ask_instance_metadata(&azure, "false").await.status, 400);
    let answer = ask_instance_metadata(&azure, "true").await.json().unwrap();
    assert_eq!(answer["access_token"], azure.tokens().pop().unwrap());
    assert_eq!(answer["token_type"], "Bearer");
    for number in ["expires_on", "expires_in", "not_before"] {
        answer[number].as_str().unwrap().parse::<u64>().unwrap();
    }
}

#[tokio::test]
async fn token_endpoints_fail_when_told_to() {
    let azure = Simulator::start(Options::default()).unwrap();
    azure.set_identity_fault(Some(IdentityFault::Status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(ask_instance_metadata(&azure, "true").await.status, 503);
    azure.set_identity_fault(Some(IdentityFault::Slow(Duration::from_millis(1))));
    assert_eq!(ask_instance_metadata(&azure, "true").await.status, 200);
    assert_eq!((azure.tokens_asked(), azure.tokens_issued()), (2, 1));
}
