//! The identity endpoints, asked by Azure's own library, and by hand where it cannot be pointed at loopback.
//!
//! The library takes its endpoints from the environment of the process, so it is asked in a child process of this test.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "tests unwrap, and so do their helpers; the child prints to its parent; gauges are whole numbers"
)]

use std::process::Command;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, WorkloadIdentityCredential};
use bytes::Bytes;
use gateway_tests::harness::{Client, Config, Reply, Scene, Site, Unheard, chat, user_says};
use gateway_tests::simulator::{
    AUDIENCE, Behaviour, Fault, IDENTITY_HEADER, IdentityFault, Options, Simulator,
};
use http::{Request, StatusCode};
use serde_json::Value;

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

/// What `/status` says of the only scope.
async fn identity(scene: &Scene) -> Value {
    scene.gateway.admin_page("/status").await.unwrap().json().unwrap()["identity"][0].clone()
}

/// What `/status` says of the only backend.
async fn backend(scene: &Scene) -> Value {
    scene.gateway.admin_page("/status").await.unwrap().json().unwrap()["backends"][0].clone()
}

fn site(azure: &Simulator, more: &str) -> Site {
    let config = Config::for_simulator(azure).unwrap().with("[tiers.free]\n").unwrap();
    Site::new(azure, &config.with(more).unwrap()).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_told_at_the_first_failure() {
    let azure = Simulator::start(Options::default()).unwrap();
    let unheard = Unheard::new().unwrap();
    let mut site = site(&azure, "[identity]\nsource = \"auto\"\n");
    site.set_environment("IDENTITY_ENDPOINT", format!("http://{}/msi/token", unheard.address()));
    let scene = Scene::in_site(azure, site).unwrap();

    let chosen = scene.gateway.log().wait_for("source of identity tokens").unwrap();
    assert_eq!(chosen["source"], "managed");
    assert!(chosen["because"].as_str().unwrap().ends_with("IDENTITY_ENDPOINT is"), "{chosen}");
    let warning = scene.gateway.log().wait_for("no identity token").unwrap();
    let reason = warning["reason"].as_str().unwrap();
    assert!(reason.starts_with("the endpoint that IDENTITY_ENDPOINT names cannot be reached"), "{reason}");
    assert!(reason.contains("Connection refused"), "{reason}");
    assert_eq!(warning["level"], "WARN");

    let told = identity(&scene).await;
    assert_eq!((&told["up"], &told["reason"]), (&Value::from(false), &Value::from(reason)));
    assert_eq!((&told["scope"], &told["source"]), (&Value::from(SCOPE), &Value::from("managed")));
    assert_eq!(told["expiresAt"], Value::Null);
    let ready = scene.gateway.admin_page("/readyz").await.unwrap();
    assert_eq!(
        (ready.status.as_u16(), ready.text().unwrap()),
        (503, &*format!("no identity token yet: {reason}\n"))
    );
    assert_eq!(scene.gateway.metric("gateway_identity_up", &[("scope", SCOPE)]).await.unwrap(), 0.0);
}

#[tokio::test]
async fn a_failure_that_ends_is_told_too() {
    let azure = Simulator::start(Options::default()).unwrap();
    azure.set_identity_fault(Some(IdentityFault::Status(StatusCode::BAD_REQUEST)));
    let site = site(&azure, "[identity]\nclient_id = \"11-22\"\n");
    let scene = Scene::in_site(azure, site).unwrap();
    let warning = scene.gateway.log().wait_for("no identity token").unwrap();
    let reason = warning["reason"].as_str().unwrap();
    assert!(reason.contains("client ID 11-22 (simulated failure): assign that identity"), "{reason}");

    scene.azure.set_identity_fault(None);
    scene.ready().await.unwrap();
    let recovered = scene.gateway.log().wait_for("identity tokens can be had again").unwrap();
    assert_eq!(recovered["level"], "INFO");
    let told = identity(&scene).await;
    assert_eq!((&told["up"], &told["reason"]), (&Value::from(true), &Value::Null));
    assert!(told["expiresAt"].as_str().unwrap().ends_with('Z'), "{told}");
    let metrics = scene.gateway.metrics().await.unwrap();
    assert_eq!(metrics.sum("gateway_identity_up", &[("scope", SCOPE)]), 1.0);
    assert!(metrics.sum("gateway_identity_token_expiry_seconds", &[("scope", SCOPE)]) > 1e9);
}

#[test]
fn a_machine_outside_azure_is_told_what_it_lacks() {
    let azure = Simulator::start(Options::default()).unwrap();
    let mut site = site(&azure, "[identity]\nsource = \"auto\"\n");
    site.use_instance_metadata();
    site.set_environment("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    site.add_tenant("acme", None).unwrap();
    let mut nowhere = Command::new("unshare");
    let user =
        if rustix::process::geteuid().is_root() { ["-n"].as_slice() } else { ["-U", "-r", "-n"].as_slice() };
    nowhere.args(user).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    let gateway = site.start_under(nowhere).unwrap();
    let warning = gateway.log().wait_for("no identity token").unwrap();
    let reason = warning["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("instance metadata (169.254.169.254) cannot be reached (Network is unreachable"),
        "{reason}"
    );
    assert!(reason.contains("this node has no managed identity endpoint"), "{reason}");
    assert!(
        reason.contains("AZURE_FEDERATED_TOKEN_FILE is not set: the azure-workload-identity webhook"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_role_that_is_missing_is_told_once_with_the_remedy() {
    let scene = Scene::start("").await.unwrap();
    let status = async || {
        scene.gateway.call(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap().status
    };
    let missing = async || {
        scene.gateway.metric("gateway_backend_role_missing", &[("backend", "simulator")]).await.unwrap()
    };
    assert_eq!((&backend(&scene).await["role"], missing().await), (&Value::Null, 0.0));
    assert_eq!(status().await, 200);
    assert_eq!((&backend(&scene).await["role"], missing().await), (&Value::from("present"), 0.0));

    scene.azure.behave(Behaviour { fault: Some(Fault::MissingRole), ..Behaviour::default() });
    assert_eq!((status().await, status().await), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    let told = backend(&scene).await;
    assert_eq!((&told["role"], missing().await), (&Value::from("missing"), 1.0));
    let reason = told["refused"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the gateway's identity has no role on the account: assign `Cognitive"),
        "{reason}"
    );
    assert!(reason.contains("lacks the required data action"), "{reason}");

    scene.azure.behave(Behaviour::default());
    assert_eq!(status().await, 200);
    let told = backend(&scene).await;
    assert_eq!((&told["role"], &told["refused"]), (&Value::from("present"), &Value::Null));
    assert_eq!(missing().await, 0.0);
    scene.gateway.log().wait_for("the backend takes the gateway's identity again").unwrap();
    let lines = scene.gateway.log().events();
    let lines = lines.iter().filter(|event| event["message"] == "the backend refuses the gateway");
    assert_eq!(lines.map(|event| event["reason"].as_str()).collect::<Vec<_>>(), [Some(reason)]);
}
