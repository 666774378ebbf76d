//! `aoai-gateway smoke` against a gateway that streams, and through a proxy that does not.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::certificate::Authority;
use gateway_tests::harness::{Client, Config, Gateway, Keys, Protocol, Site, Unheard};
use gateway_tests::simulator::{Behaviour, Fault, Options, Simulator};
use http::header::TRANSFER_ENCODING;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

/// A gateway, its tenant's keys, and a simulator that gives `tokens` tokens, one every 20 ms.
async fn start(tokens: u64, configuration: &str) -> (Simulator, Gateway, Keys) {
    let behaviour = Behaviour { tokens, chunk_delay: Duration::from_millis(20), ..Behaviour::default() };
    let azure = Simulator::start(Options { behaviour, ..Options::default() }).unwrap();
    let config = Config::for_simulator(&azure).unwrap().with(configuration).unwrap();
    let site = Site::new(&azure, &config).unwrap();
    let keys = site.add_tenant("acme", None).unwrap();
    std::fs::write(site.path().join("ca.crt"), site.authority().pem()).unwrap();
    let gateway = site.start().unwrap();
    gateway.ready().await.unwrap();
    (azure, gateway, keys)
}

/// Runs the command without holding up what runs in this test.
async fn smoke(site: &Site, address: SocketAddr, key: &str, more: &[&str]) -> Output {
    let url = format!("https://{address}");
    let mut command = site.command(&["smoke", "--url", &url]).unwrap();
    command.env("AOAI_GATEWAY_KEY", key).args(more);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The exit code and the error of a command that shows nothing else.
fn failure(output: &Output) -> (Option<i32>, &str) {
    assert_eq!(stdout(output), "");
    (output.status.code(), std::str::from_utf8(&output.stderr).unwrap())
}

const TRUSTING: [&str; 4] = ["--ca", "ca.crt", "--deployment", "chat"];

/// Runs the command, and again where chunks came together: those that wait for a busy machine do so too, but not each time.
async fn smoke_steadily(gateway: &Gateway, key: &str, more: &[&str]) -> Output {
    let try_it = async || smoke(gateway.site(), gateway.address(), key, more).await;
    let mut output = try_it().await;
    for _again in 0..4 {
        if output.status.code() == Some(1) {
            output = try_it().await;
        }
    }
    output
}

#[tokio::test]
async fn a_stream_that_streams_passes() {
    let (_azure, gateway, keys) = start(60, "").await;
    let output = smoke_steadily(&gateway, &keys.primary, &TRUSTING).await;
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("plain     chat answered after"), "{shown}");
    assert!(shown.contains("x-tokens-consumed: "), "{shown}");
    assert!(shown.contains("x-tokens-remaining: "), "{shown}");
    assert_eq!(shown.matches(" ms  +").count(), 60, "{shown}");
    assert_eq!(shown.matches(" and 60 completion tokens").count(), 2, "{shown}");
    assert!(shown.contains("\n60 chunks: the first after "), "{shown}");
    assert!(shown.ends_with("ok: streaming streams\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "colours are for terminals: {shown:?}");
}

#[tokio::test]
async fn an_answer_that_a_proxy_buffers_fails() {
    let (_azure, gateway, keys) = start(60, "").await;
    let site = gateway.site();
    let proxy = buffering_proxy(gateway.address(), site.authority().clone()).await;
    let output = smoke(site, proxy, &keys.primary, &TRUSTING).await;
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("\n60 chunks: the first after "), "{shown}");
    assert!(shown.contains("FAILED: half of the chunks or more came together"), "{shown}");
    assert!(shown.contains("proxy_buffering off"), "{shown}");
}

#[tokio::test]
async fn an_answer_too_short_to_tell_has_its_own_exit_code() {
    let (_azure, gateway, keys) = start(5, "").await;
    let output = smoke(gateway.site(), gateway.address(), &keys.primary, &TRUSTING).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).contains("cannot tell: "), "{}", stdout(&output));
}

#[tokio::test]
async fn without_a_deployment_the_first_that_chats_is_called() {
    let (azure, gateway, keys) =
        start(20, "[deployments.a-search]\nmodel = \"text-embedding-3-small\"\n").await;
    azure
        .behave_for("a-search", Behaviour { fault: Some(Fault::DeploymentNotFound), ..Behaviour::default() });
    let output = smoke_steadily(&gateway, &keys.primary, &["--ca", "ca.crt"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout(&output).starts_with("plain     chat answered after"), "{}", stdout(&output));
    assert!(azure.requests()[0].target.ends_with("/chat/completions"));
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let (azure, gateway, keys) = start(20, "").await;
    let (site, address) = (gateway.site(), gateway.address());

    let untrusted = smoke(site, address, &keys.primary, &["--deployment", "chat"]).await;
    let (code, error) = failure(&untrusted);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("certificate is not trusted") && error.contains("--ca FILE"), "{error}");

    let unheard = Unheard::new().unwrap();
    let nobody = unheard.address();
    let closed = smoke(site, nobody, &keys.primary, &TRUSTING).await;
    let (code, error) = failure(&closed);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.starts_with(&format!("error: {nobody}: connection refused")), "{error}");

    let plain = smoke(site, gateway.admin(), &keys.primary, &TRUSTING).await;
    let (code, error) = failure(&plain);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("does not speak TLS"), "{error}");

    let unknown = smoke(site, address, &keys.primary, &["--ca", "ca.crt", "--deployment", "nope"]).await;
    let (code, error) = failure(&unknown);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("there is no deployment nope to call (404"), "{error}");

    let foreign = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
    let key = foreign.add_tenant("acme", None).unwrap().primary;
    let foreign = smoke(site, address, &key, &TRUSTING).await;
    let (code, error) = failure(&foreign);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("the key is not accepted") && error.contains("401"), "{error}");
    assert!(!error.contains(&key), "{error}");
}

/// A certificate as `openssl req -x509` makes it: self-signed, and an authority's.
fn self_signed() -> (String, String) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_it_is_named() {
    let behaviour = Behaviour { tokens: 5, ..Behaviour::default() };
    let azure = Simulator::start(Options { behaviour, ..Options::default() }).unwrap();
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
    let keys = site.add_tenant("acme", None).unwrap();
    let (certificate, private_key) = self_signed();
    std::fs::write(site.path().join("tls/tls.crt"), &certificate).unwrap();
    std::fs::write(site.path().join("tls/tls.key"), private_key).unwrap();
    std::fs::write(site.path().join("other.crt"), self_signed().0).unwrap();
    let gateway = site.start().unwrap();
    gateway.ready().await.unwrap();

    let named = ["--ca", "tls/tls.crt", "--deployment", "chat"];
    let output = smoke(gateway.site(), gateway.address(), &keys.primary, &named).await;
    assert!(
        stdout(&output).starts_with("plain     chat answered"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let other = smoke(gateway.site(), gateway.address(), &keys.primary, &["--ca", "other.crt"]).await;
    let (code, error) = failure(&other);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("the certificate is not trusted"), "{error}");
    assert!(!error.contains("CaUsedAsEndEntity") && !error.contains("Error("), "{error}");

    let anyone = ["--insecure", "--deployment", "chat"];
    let output = smoke(gateway.site(), gateway.address(), &keys.primary, &anyone).await;
    assert!(stdout(&output).starts_with("plain     chat answered"), "{}", stdout(&output));
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(warning.contains("warning: --insecure: the certificate is not verified"), "{warning}");
}

#[tokio::test]
async fn an_url_is_taken_as_sdks_are_given_it_and_a_wrong_scheme_is_told() {
    let (_azure, gateway, keys) = start(5, "").await;
    let run = async |url: String| {
        let mut command = gateway.site().command(&["smoke", "--url", &url]).unwrap();
        command.env("AOAI_GATEWAY_KEY", &keys.primary).args(TRUSTING);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    };
    for path in ["/openai", "/openai/", "/openai/v1", "/openai/v1/", "/openai/deployments/chat"] {
        let output = run(format!("https://{}{path}", gateway.address())).await;
        let shown = stdout(&output);
        assert!(
            shown.starts_with("plain     chat answered"),
            "{path}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let plain = run(format!("http://{}", gateway.address())).await;
    let (code, error) = failure(&plain);
    assert_eq!(code, Some(4), "{error}");
    let expected =
        format!("error: {}: that port speaks TLS; the URL begins with https://\n", gateway.address());
    assert_eq!(error, expected);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_shows_no_key() {
    let (_azure, gateway, keys) = start(20, "").await;
    let (site, address) = (gateway.site(), gateway.address());
    let mistyped = keys.primary.replace("aoai_", "aoai-");
    let output = smoke(site, address, &mistyped, &TRUSTING).await;
    let (code, error) = failure(&output);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("the key is no subscription key")
            && !error.contains(mistyped.trim_start_matches("aoai-")),
        "{error}"
    );

    let output = smoke(site, address, &keys.primary, &["--ca", "no.crt"]).await;
    let (code, error) = failure(&output);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("no.crt"), "{error}");
}

/// A TLS reverse proxy that has every response whole before it passes any of it on.
async fn buffering_proxy(gateway: SocketAddr, authority: Authority) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let authority = authority.clone();
            tokio::spawn(async move {
                let stream = authority.acceptor(&[b"http/1.1"]).unwrap().accept(stream).await.unwrap();
                let service = service_fn(|request| buffered(gateway, authority.clone(), request));
                // The caller hangs up when it has what it wants.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

#[expect(clippy::disallowed_methods, reason = "the request is our own")]
async fn buffered(
    gateway: SocketAddr,
    authority: Authority,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut client = Client::connect(gateway, &authority, Protocol::Http1).await.unwrap();
    let reply = client.send(Request::from_parts(parts, body)).await.unwrap();
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response.headers_mut().remove(TRANSFER_ENCODING);
    Ok(response)
}
