//! Upstreams that do what Azure should not: what reaches the caller of it, and what the tenant pays.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::io::Write as _;

use gateway_tests::harness::{Protocol, Scene, ScriptedUpstream, chat, user_says};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn headers_that_speak_of_upstreams_connection_stay_behind() {
    let upstream = ScriptedUpstream::start(|stream| {
        let body = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: keep-alive, X-Hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\n\r\n{body}",
            body.len()
        )
    })
    .unwrap();
    let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
    for protocol in PROTOCOLS {
        let mut client = scene.gateway.connect(protocol).await.unwrap();
        let request = chat("odd", &scene.acme.primary, &user_says("hi")).unwrap();
        let reply = client.send(request).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("x-kept")), (200, Some("1")));
        for name in ["x-hop", "keep-alive", "connection"] {
            assert_eq!(reply.header(name), None, "{name}");
        }
    }
    scene.unharmed().await.unwrap();
}
