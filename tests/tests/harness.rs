//! The harness's clients, against servers that are known to be right.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use gateway_tests::certificate::Authority;
use gateway_tests::harness::{Client, Protocol, RawConnection, post, user_says};
use gateway_tests::simulator::{Options, Simulator};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

const CHAT: &str = "/openai/v1/chat/completions";

#[tokio::test]
async fn http1_over_tls_reads_an_answer() {
    let azure = Simulator::start(Options { tls: true, check_tokens: false, ..Options::default() }).unwrap();
    let (address, authority) = (azure.tls_address().unwrap(), azure.authority().unwrap());
    let mut client = Client::connect(address, authority, Protocol::Http1).await.unwrap();
    for _ in 0..2 {
        let mut body = user_says("hi");
        body["model"] = "chat".into();
        let reply = client.send(post(CHAT, "", &body).unwrap()).await.unwrap();
        assert_eq!(reply.json().unwrap()["object"], "chat.completion");
    }
    let requests = azure.requests();
    assert_eq!(requests[0].connection, requests[1].connection, "the connection is kept");
    let foreign = Authority::new().unwrap();
    assert!(Client::connect(address, &foreign, Protocol::Http1).await.is_err());
}

#[tokio::test]
async fn raw_bytes_over_tls_get_their_answer() {
    let azure = Simulator::start(Options { tls: true, ..Options::default() }).unwrap();
    let (address, authority) = (azure.tls_address().unwrap(), azure.authority().unwrap());
    let mut raw = RawConnection::connect(address, authority, &[b"http/1.1"]).await.unwrap();
    raw.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(raw.read_until("\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 404 Not Found\r\n"));
    raw.write(b"what is this\r\n\r\n").await.unwrap();
    assert!(raw.read_to_end().await.unwrap().contains("HTTP/1.1 400 Bad Request\r\n"));
}

/// Serves one HTTP/2 connection; every answer is the path, then a trailer.
async fn echo(authority: Authority) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = authority.acceptor(&[b"h2"]).unwrap().accept(stream).await.unwrap();
        let service = service_fn(async |request: Request<hyper::body::Incoming>| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-tokens-consumed", 7.into());
            let body = Full::new(Bytes::from(request.uri().path().to_owned()));
            let body = body.with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
            Ok::<_, Infallible>(Response::new(body))
        });
        http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
            .unwrap();
    });
    address
}

#[tokio::test]
async fn http2_reads_answers_at_the_same_time_and_their_trailers() {
    let authority = Authority::new().unwrap();
    let address = echo(authority.clone()).await;
    let mut client = Client::connect(address, &authority, Protocol::Http2).await.unwrap();
    let mut another = client.another().unwrap();
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    let (first, second) = tokio::join!(client.send(get("/one")), another.send(get("/two")));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.text().unwrap(), second.text().unwrap()), ("/one", "/two"));
    assert_eq!(first.trailers["x-tokens-consumed"], "7");
}
