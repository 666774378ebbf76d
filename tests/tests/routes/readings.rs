//! What could be read in two ways, and what asks for too much, is refused by name.

use gateway_tests::harness::{Scene, user_says};
use http::header::CONTENT_ENCODING;

use super::{SCENE, raw, refused};

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = scene.acme.primary.as_str();
    let path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    for twice in ["api-version=2023-05-15", "API-Version=2024-10-21", "api%2Dversion="] {
        let request = raw(&format!("{path}&{twice}"), key, user_says("hi").to_string());
        refused(&scene, request, 400, "invalid_request").await;
    }
    for codings in [&["identity", "gzip"][..], &["gzip", "identity"], &["identity, deflate"]] {
        let mut request = raw(path, key, user_says("hi").to_string());
        for coding in codings {
            request.headers_mut().append(CONTENT_ENCODING, coding.parse().unwrap());
        }
        refused(&scene, request, 400, "invalid_request").await;
    }
    assert_eq!(scene.azure.requests().len(), 0);
}

#[tokio::test]
async fn too_many_answers_are_refused_by_name() {
    let scene = Scene::start(&format!("{SCENE}tokens_per_minute = 100\n")).await.unwrap();
    let key = scene.acme.primary.as_str();
    let path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    for (n, status, says) in
        [(129_u64, 400, "`n` must be at most 128"), (128, 413, "128 answers at once (`n`")]
    {
        let mut body = user_says("hi");
        body["n"] = n.into();
        let reply = scene.gateway.call(raw(path, key, body.to_string())).await.unwrap();
        assert_eq!(reply.status, status);
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(said.contains(says), "{said}");
    }
}
