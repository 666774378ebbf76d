//! Which requests are calls, whose they are, and what Azure would see of them.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "routes/readings.rs"]
mod readings;

use std::io::Write as _;

use bytes::Bytes;
use gateway_tests::harness::{Protocol, Reply, Scene, ScriptedUpstream, chat, post, user_says, wait_until};
use gateway_tests::simulator::{Behaviour, UsageReport};
use http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use http::{HeaderValue, Request};
use serde_json::{Value, json};

const SCENE: &str = "[deployments.twin]\nmodel = \"gpt-4o-mini\"\n[tiers.default]\ndeployments = [\"chat\", \"instruct\", \"embed\"]\n";

fn with_model(mut body: Value, model: &str) -> Value {
    body["model"] = model.into();
    body
}

fn raw(path: &str, key: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = post(path, key, &Value::Null).unwrap();
    *request.body_mut() = body.into();
    request
}

async fn refused(scene: &Scene, request: Request<Bytes>, status: u16, error: &str) -> Reply {
    let said = format!("{} {}", request.uri(), String::from_utf8_lossy(request.body()));
    let reply = scene.gateway.call(request).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.error().as_deref()), (status, Some(error)), "{said}");
    reply
}

#[tokio::test]
async fn every_api_is_served_on_both_url_shapes_and_protocols() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = &scene.acme.primary;
    let says = user_says("hi");
    let version = "api-version=2024-10-21";
    let old = |deployment: &str, api: &str| format!("/openai/deployments/{deployment}/{api}?{version}");
    let v1 = |api: &str| format!("/openai/v1/{api}");
    for (path, body, object) in [
        (old("chat", "chat/completions"), says.clone(), "chat.completion"),
        (old("instruct", "completions"), json!({"prompt": "hi"}), "text_completion"),
        (old("embed", "embeddings"), json!({"input": "hi"}), "list"),
        (format!("/openai/responses?{version}"), with_model(json!({"input": "hi"}), "chat"), "response"),
        (v1("chat/completions"), with_model(says.clone(), "chat"), "chat.completion"),
        (v1("completions"), with_model(json!({"prompt": "hi"}), "instruct"), "text_completion"),
        (v1("embeddings"), with_model(json!({"input": "hi"}), "embed"), "list"),
        (v1("responses"), with_model(json!({"input": "hi"}), "chat"), "response"),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = scene.gateway.connect(protocol).await.unwrap();
            let reply = client.send(post(&path, key, &body).unwrap()).await.unwrap();
            assert_eq!(reply.status, 200, "{path}: {:?}", reply.body);
            let answer = reply.json().unwrap();
            assert_eq!(answer["object"], object, "{path}");
            let usage = &answer["usage"];
            assert_eq!(
                reply.header("x-tokens-consumed"),
                Some(&*usage["total_tokens"].to_string()),
                "{path}"
            );
            assert!(reply.header("x-ratelimit-remaining").is_some(), "{path}");
            assert!(reply.header("x-tokens-remaining").is_some(), "{path}");
            let sent = scene.azure.requests().pop().unwrap();
            assert_eq!(sent.target, path, "the target is forwarded as it came");
        }
    }
    let totals = scene.azure.all_totals();
    let metrics = scene.gateway.metrics().await.unwrap();
    assert_eq!(totals.calls, 16);
    let booked = |name| metrics.sum(name, &[("tenant", "acme"), ("kind", "single")]);
    assert_eq!(booked("aoai_tokens_consumed_total"), totals.tokens() as f64);
    assert_eq!(booked("aoai_prompt_tokens_total"), totals.prompt_tokens as f64);
    assert_eq!(booked("aoai_completion_tokens_total"), totals.generated_tokens as f64);
    assert_eq!(metrics.sum("gateway_requests_total", &[("tenant", "acme"), ("status", "200")]), 16.0);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn models_are_those_that_the_tenant_may_use() {
    let scene = Scene::start(SCENE).await.unwrap();
    let list =
        |key: &str| Request::get("/openai/v1/models").header("api-key", key).body(Bytes::new()).unwrap();
    let reply = scene.gateway.call(list(&scene.acme.primary)).await.unwrap();
    let models = reply.json().unwrap();
    let ids = |list: &Value| -> Vec<_> {
        list["data"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect()
    };
    assert_eq!(ids(&models), ["chat", "embed", "instruct"]);
    assert_eq!(models["object"], "list");
    let counted = [("tenant", "acme"), ("status", "200")];
    assert_eq!(scene.gateway.metric("gateway_requests_total", &counted).await.unwrap(), 1.0);
    refused(&scene, list("aoai_no"), 401, "invalid_subscription_key").await;
    let key = scene.acme.primary.as_str();
    let get = |path: &str| Request::get(path).header("api-key", key).body(Bytes::new()).unwrap();
    let old = scene.gateway.call(get("/openai/models?api-version=2024-10-21")).await.unwrap();
    assert_eq!(old.json().unwrap(), models);
    let deployments = scene.gateway.call(get("/openai/deployments?api-version=2022-12-01")).await.unwrap();
    let deployments = deployments.json().unwrap();
    assert_eq!(ids(&deployments), ["chat", "embed", "instruct"]);
    let first = &deployments["data"][0];
    assert_eq!((&first["model"], &first["status"]), (&json!("gpt-4o-mini"), &json!("succeeded")));
    assert_eq!((&first["object"], &deployments["object"]), (&json!("deployment"), &json!("list")));
    let one = scene.gateway.call(get("/openai/v1/models/chat")).await.unwrap();
    assert_eq!(one.json().unwrap(), models["data"][0]);
    for other in ["twin", "nowhere", "chat%20"] {
        refused(&scene, get(&format!("/openai/v1/models/{other}")), 404, "unknown_deployment").await;
    }
    assert_eq!(scene.azure.requests().len(), 0, "the gateway answers this itself");
}

#[tokio::test]
async fn what_is_not_metered_does_not_exist() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = &scene.acme.primary;
    for (method, path) in [
        ("POST", "/openai/v1/files"),
        ("POST", "/openai/v1/batches"),
        ("POST", "/openai/v1/images/generations"),
        ("POST", "/openai/v1/realtime"),
        ("POST", "/openai/v1/chat/completions/"),
        ("POST", "/openai//v1/chat/completions"),
        ("POST", "/openai/v1/../v1/files"),
        ("POST", "/openai/deployments/chat/extensions/chat/completions"),
        ("POST", "/openai/deployments/chat/audio/speech"),
        ("POST", "/OPENAI/v1/chat/completions"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("DELETE", "/openai/v1/responses/resp_1"),
        ("POST", "/openai/v1/responses/resp_1/cancel"),
        ("GET", "/openai/v1/chat/completions"),
        ("PUT", "/openai/v1/chat/completions"),
        ("OPTIONS", "/openai/v1/chat/completions"),
        ("GET", "/metrics"),
        ("GET", "/status"),
        ("POST", "/"),
        ("GET", "/openai/deployments/chat"),
        ("GET", "/openai/models/chat"),
    ] {
        let request = Request::builder().method(method).uri(path).header("api-key", key);
        refused(&scene, request.body(Bytes::new()).unwrap(), 404, "unknown_route").await;
    }
    // An escaped slash is part of a name that nobody has.
    let escaped = "/openai/deployments/chat%2Fchat/completions";
    refused(&scene, post(escaped, key, &user_says("hi")).unwrap(), 404, "unknown_deployment").await;
    assert_eq!(scene.azure.requests().len(), 0);
}

#[tokio::test]
async fn path_and_query_must_agree_on_the_deployment() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = &scene.acme.primary;
    let old = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    let says = user_says("hi");
    for (path, body) in [
        (format!("{old}&deployment=twin"), says.clone()),
        (format!("{old}&deployment%2Did=twin"), says.clone()),
        (format!("{old}&model=chat&MODEL=twin"), says.clone()),
        ("/openai/v1/chat/completions?deployment=twin".to_owned(), with_model(says.clone(), "chat")),
        ("/openai/v1/chat/completions".to_owned(), says.clone()),
        ("/openai/v1/chat/completions".to_owned(), json!({"model": 5, "messages": []})),
    ] {
        refused(&scene, post(&path, key, &body).unwrap(), 400, "invalid_request").await;
    }
    let v1 = "/openai/v1/chat/completions";
    refused(&scene, post(v1, key, &with_model(says.clone(), "twin")).unwrap(), 403, "deployment_not_allowed")
        .await;
    refused(&scene, post(v1, key, &with_model(says.clone(), "none")).unwrap(), 404, "unknown_deployment")
        .await;
    assert_eq!(scene.azure.requests().len(), 0);
    let agreed = post(&format!("{old}&deployment=chat"), key, &with_model(says, "gpt-4o-mini")).unwrap();
    assert_eq!(scene.gateway.call(agreed).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_or_escapes_metering_is_refused() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = &scene.acme.primary;
    let chat = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    for body in [
        r#"{"messages":[],"stream":true,"stream":false}"#,
        r#"{"messages":[],"max_tokens":1,"max_tokens":9}"#,
        r#"{"messages":[],"max_tokens":1,"max_t\u006fkens":9}"#,
        r#"{"messages":[],"Max_Tokens":9}"#,
        r#"{"messages":[],"max_tokens":1,"max_completion_tokens":9}"#,
        r#"{"messages":[],"max_tokens":-1}"#,
        r#"{"messages":[],"max_tokens":1.5}"#,
        r#"{"messages":[],"max_tokens":"9"}"#,
        r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
        r#"{"messages":[],"stream":true,"stream_options":7}"#,
        r#"{"messages":[],"n":2,"n":1}"#,
        r#"{"messages":[]} {}"#,
        r#"{"messages":[],}"#,
        "",
    ] {
        refused(&scene, raw(chat, key, body), 400, "invalid_request").await;
    }
    let responses = "/openai/v1/responses";
    for body in [
        json!({"background": true}),
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"prompt": {"id": "pmpt_1"}}),
        json!({"tools": [{"type": "web_search"}]}),
        json!({"input": [{"id": "msg_1"}]}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://example.org/a.pdf"}]}]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "assistant-1"}]}]}),
    ] {
        let mut body = with_model(body, "chat");
        if body.get("input").is_none() {
            body["input"] = "hi".into();
        }
        refused(&scene, post(responses, key, &body).unwrap(), 400, "invalid_request").await;
    }
    for body in [
        // A list that is read in two ways hides a tool that upstream runs.
        r#"{"model":"chat","input":"hi","tools":[{"type":"function","type":"web_search"}]}"#,
        r#"{"model":"chat","input":"hi","tools":[{"type":"web_search"},5]}"#,
    ] {
        refused(&scene, raw(responses, key, body), 400, "invalid_request").await;
    }
    for field in ["data_sources", "dataSources", "web_search_options"] {
        let mut body = user_says("hi");
        body[field] = json!([{"type": "azure_search"}]);
        refused(&scene, post(chat, key, &body).unwrap(), 400, "invalid_request").await;
    }
    assert_eq!(scene.azure.requests().len(), 0);
    scene.unharmed().await.unwrap();
}

/// The five places of a key, best first, with what a request looks like that has `key` there.
const PLACES: [&str; 5] =
    ["ocp-apim-subscription-key", "api-key", "authorization", "subscription-key", "?api-key"];

fn with_keys(keys: &[(&str, &str)]) -> Request<Bytes> {
    let mut query = "api-version=2024-10-21".to_owned();
    let mut request = chat("chat", "", &user_says("hi")).unwrap();
    for (place, key) in keys {
        let header = HeaderName::from_bytes(place.as_bytes());
        match *place {
            "subscription-key" => query = format!("subscription-key={key}&{query}"),
            "?api-key" => query = format!("{query}&Api%2Dkey={key}"),
            "authorization" => {
                let value = HeaderValue::try_from(format!("bearer {key}")).unwrap();
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            _ => {
                request.headers_mut().insert(header.unwrap(), key.parse().unwrap());
            }
        }
    }
    *request.uri_mut() = format!("/openai/deployments/chat/chat/completions?{query}").parse().unwrap();
    request
}

#[tokio::test]
async fn a_key_is_found_in_all_five_places_and_the_first_wins() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = scene.acme.primary.as_str();
    for place in PLACES {
        let reply = scene.gateway.call(with_keys(&[(place, key)])).await.unwrap();
        assert_eq!(reply.status, 200, "{place}: {:?}", reply.body);
        assert_eq!(
            scene.gateway.call(with_keys(&[(place, &scene.acme.secondary)])).await.unwrap().status,
            200
        );
    }
    for (at, place) in PLACES.iter().enumerate() {
        let right_first: Vec<_> = PLACES
            .iter()
            .enumerate()
            .skip(at)
            .map(|(n, other)| (*other, if n == at { key } else { "wrong" }))
            .collect();
        assert_eq!(scene.gateway.call(with_keys(&right_first)).await.unwrap().status, 200, "{place}");
        for later in &PLACES[at + 1..] {
            refused(&scene, with_keys(&[(place, "wrong"), (later, key)]), 401, "invalid_subscription_key")
                .await;
        }
    }
    for recorded in scene.azure.requests() {
        assert!(!recorded.contains(key) && !recorded.contains("wrong"), "{recorded:?}");
        assert_eq!(recorded.target, "/openai/deployments/chat/chat/completions?api-version=2024-10-21");
    }
}

#[tokio::test]
async fn an_empty_key_leaves_the_place_to_the_next() {
    let scene = Scene::start(SCENE).await.unwrap();
    let key = scene.acme.primary.as_str();
    for (at, empty) in PLACES.iter().enumerate() {
        for place in &PLACES[at + 1..] {
            let reply = scene.gateway.call(with_keys(&[(empty, ""), (place, key)])).await.unwrap();
            assert_eq!(reply.status, 200, "{place} behind an empty {empty}: {:?}", reply.body);
        }
    }
    refused(&scene, with_keys(&PLACES.map(|place| (place, ""))), 401, "missing_tenant").await;
}

#[tokio::test]
async fn upstreams_request_id_passes_beside_the_gateways_own() {
    let answer = json!({
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100_000, "completion_tokens": 0, "total_tokens": 100_000},
    });
    let answer = answer.to_string();
    let upstream = ScriptedUpstream::start(move |stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: azures\r\n\
             apim-request-id: apims\r\nx-ms-client-request-id: callers\r\nx-gateway-request-id: forged\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes())
    })
    .unwrap();
    let scene = Scene::beside(upstream.address(), "", "").await.unwrap();
    let key = scene.acme.primary.as_str();
    let reply = scene.gateway.call(chat("odd", key, &user_says("hi")).unwrap()).await.unwrap();
    for (header, value) in
        [("x-request-id", "azures"), ("apim-request-id", "apims"), ("x-ms-client-request-id", "callers")]
    {
        assert_eq!(reply.header(header), Some(value));
    }
    let id = reply.header("x-gateway-request-id").unwrap();
    assert_eq!(id.len(), 32);
    let log = scene.gateway.log().clone();
    let logged = tokio::task::spawn_blocking(move || log.wait_for("call")).await.unwrap().unwrap();
    assert_eq!((&logged["request_id"], &logged["upstream_request_id"]), (&json!(id), &json!("azures")));
    assert_eq!((&logged["backend"], &logged["usage_source"]), (&json!("odd"), &json!("upstream")));
    assert_eq!(logged["cost_dollars"], json!(0.015));
    // What upstream never saw has the gateway's id alone.
    let wrong = chat("odd", "wrong", &user_says("hi")).unwrap();
    let refusal = refused(&scene, wrong, 401, "invalid_subscription_key").await;
    assert_eq!(refusal.header("x-request-id"), refusal.header("x-gateway-request-id"));
    // The caller's own id, and its wish to be told it, go upstream.
    let mut traced = chat("chat", key, &user_says("hi")).unwrap();
    traced.headers_mut().insert("x-ms-return-client-request-id", HeaderValue::from_static("true"));
    assert_eq!(scene.gateway.call(traced).await.unwrap().status, 200);
    let sent = scene.azure.requests().pop().unwrap();
    assert_eq!(sent.header("x-ms-return-client-request-id"), Some("true"));
}

#[tokio::test]
async fn a_load_balancer_is_answered_and_serves_nobody() {
    let scene =
        Scene::start("[kernel]\nexempt = []\ncalls_per_second = 100000\ncall_burst = 5\n").await.unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    for path in ["/", "/healthz"] {
        for method in ["GET", "HEAD"] {
            let request = Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
            let reply = client.send(request).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{method} {path}");
        }
    }
    assert_eq!(scene.gateway.metric("gateway_requests_total", &[]).await.unwrap(), 0.0);
    // Whoever guesses keys does not get free of it by asking for the gateway's health in between.
    wait_until("the source is under penalty", async || {
        let wrong = chat("chat", "wrong", &user_says("hi")).unwrap();
        let guess = client.send(wrong).await.unwrap();
        let health = client.send(Request::get("/healthz").body(Bytes::new()).unwrap()).await.unwrap();
        guess.status == 429 && health.status == 429
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn health_is_charged_to_its_source() {
    let scene = Scene::start("[kernel]\nexempt = []\ncalls_per_second = 1\ncall_burst = 5\n").await.unwrap();
    let mut client = scene.gateway.connect(Protocol::Http1).await.unwrap();
    wait_until("the source is under penalty", async || {
        let reply = client.send(Request::get("/healthz").body(Bytes::new()).unwrap()).await.unwrap();
        reply.error().as_deref() == Some("source_limit")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn browsers_are_let_in_where_that_is_configured() {
    let page = "https://app.example.com";
    let scene = Scene::start(&format!("[listen]\ncors_origins = [\"{page}\"]\n")).await.unwrap();
    let from = |origin: &'static str, mut request: Request<Bytes>| {
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static(origin));
        request
    };
    let preflight = |origin| {
        let request = Request::options("/openai/v1/chat/completions")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,x-stainless-lang");
        from(origin, request.body(Bytes::new()).unwrap())
    };
    let allowed = "access-control-allow-origin";
    let answer = scene.gateway.call(preflight("https://app.example.com")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(allowed)), (204, Some(page)));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("authorization, content-type, x-stainless-lang")
    );
    for header in ["access-control-allow-methods", "access-control-max-age", "vary"] {
        assert!(answer.header(header).is_some(), "{header}");
    }
    let key = scene.acme.primary.as_str();
    for (key, status) in [(key, 200), ("wrong", 401)] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let call = from("https://app.example.com", chat("chat", key, &user_says("hi")).unwrap());
            let reply = scene.gateway.connect(protocol).await.unwrap().send(call).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.header(allowed)), (status, Some(page)));
            assert!(reply.header("access-control-expose-headers").unwrap().contains("x-gateway-request-id"));
        }
    }
    // Another page's browser is told nothing, and keeps the answer from it.
    refused(&scene, preflight("https://evil.example.com"), 404, "unknown_route").await;
    let call = from("https://evil.example.com", chat("chat", key, &user_says("hi")).unwrap());
    let reply = scene.gateway.call(call).await.unwrap();
    assert_eq!((reply.header(allowed), reply.header("vary")), (None, Some("origin")));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn browsers_are_told_nothing_by_default() {
    let scene = Scene::start("").await.unwrap();
    let mut call = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    call.headers_mut().insert(ORIGIN, HeaderValue::from_static("https://app.example.com"));
    let reply = scene.gateway.call(call).await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
    assert_eq!(reply.header("vary"), None);
}

#[tokio::test]
async fn azure_sees_the_callers_bytes_and_the_gateways_identity() {
    let allowed = "[forward]\nheaders = [\"X-Custom\"]\nquery = [\"trace\"]\n";
    let scene = Scene::start(&format!("{allowed}{SCENE}")).await.unwrap();
    let key = scene.acme.primary.as_str();
    let path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    // Spelled as nobody would write it, so that anything written anew would show.
    let body = "{ \"messages\" :[ {\"role\":\"user\",\"content\":\"caf\\u00e9 \u{1F980}\"} ],\t\"temperature\": 1.0e0 ,\n\"max_tokens\":5 }";
    let mut request = raw(&format!("{path}&x=%20a&deployment=chat&Trace=%2d"), key, body);
    for (name, value) in [
        ("ocp-apim-subscription-key", key),
        ("authorization", "Bearer caller"),
        ("x-ms-spillover-deployment", "twin"),
        ("x-ms-client-request-id", "traced"),
        ("x-forwarded-for", "10.0.0.1"),
        ("cookie", "session=1"),
        ("accept-encoding", "gzip"),
        ("user-agent", "a sdk"),
        ("x-stainless-lang", "python"),
        ("openai-beta", "responses=v1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-custom", "allowed"),
        ("azureml-model-deployment", "twin"),
        ("x-original-url", "/openai/deployments/twin/chat/completions"),
        ("x-http-method-override", "GET"),
        ("openai-organization", "another"),
        ("x-policy-id", "none"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("connection", "x-dropped"),
        ("x-dropped", "1"),
    ] {
        request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
    }
    assert_eq!(scene.gateway.call(request).await.unwrap().status, 200);
    let sent = scene.azure.requests().pop().unwrap();
    assert_eq!(sent.target, format!("{path}&trace=-"));
    assert_eq!(sent.body, body, "nothing had to be changed");
    assert_eq!(
        sent.header("authorization"),
        Some(&*format!("Bearer {}", scene.azure.tokens().pop().unwrap()))
    );
    assert_eq!(sent.header("host"), Some(&*scene.azure.address().to_string()));
    assert_eq!(sent.header("content-length"), Some(&*body.len().to_string()));
    for name in [
        "x-ms-client-request-id",
        "user-agent",
        "x-stainless-lang",
        "openai-beta",
        "traceparent",
        "x-custom",
        "content-type",
    ] {
        assert!(sent.header(name).is_some(), "{name}");
    }
    for name in [
        "api-key",
        "ocp-apim-subscription-key",
        "x-ms-spillover-deployment",
        "x-forwarded-for",
        "cookie",
        "accept-encoding",
        "x-dropped",
        "azureml-model-deployment",
        "x-original-url",
        "x-http-method-override",
        "openai-organization",
        "x-policy-id",
        "te",
        "expect",
        "connection",
        "transfer-encoding",
    ] {
        assert_eq!(sent.header(name), None, "{name}");
    }
    assert!(!sent.contains(key) && !sent.contains("caller"));
}

#[tokio::test]
async fn bodies_change_by_the_splices_alone() {
    // Of forty thousand tokens a call that names no limit holds less than the model can write.
    let scene = Scene::start(&format!("{SCENE}tokens_per_minute = 40000\n")).await.unwrap();
    let key = scene.acme.primary.as_str();
    let path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    let usage = r#""stream_options":{"include_usage":true},"#;
    let rest = r#" "messages" : [ {"role":"user","content":"\u0068i"} ] "#;
    for (given, sent) in [
        (
            format!("{{{rest},\"stream\":true,\"max_tokens\":4}}"),
            format!("{{{usage}{rest},\"stream\":true,\"max_tokens\":4}}"),
        ),
        (
            format!(
                "{{\"stream_options\": {{ \"include_usage\" : false }},{rest},\"stream\":true,\"max_tokens\":4}}"
            ),
            format!(
                "{{\"stream_options\": {{ \"include_usage\" : true }},{rest},\"stream\":true,\"max_tokens\":4}}"
            ),
        ),
        (
            format!("{{\"stream_options\": null,{rest},\"stream\":true,\"max_tokens\":4}}"),
            format!(
                "{{\"stream_options\": {{\"include_usage\":true}},{rest},\"stream\":true,\"max_tokens\":4}}"
            ),
        ),
        (
            format!(
                "{{\"stream_options\":{{\"include_usage\":true}},{rest},\"stream\":true,\"max_tokens\":4}}"
            ),
            format!(
                "{{\"stream_options\":{{\"include_usage\":true}},{rest},\"stream\":true,\"max_tokens\":4}}"
            ),
        ),
        (
            format!("{{{rest},\"stream\":false,\"max_tokens\":4}}"),
            format!("{{{rest},\"stream\":false,\"max_tokens\":4}}"),
        ),
    ] {
        let reply = scene.gateway.call(raw(path, key, given.clone())).await.unwrap();
        assert_eq!(reply.status, 200, "{given}: {:?}", reply.body);
        assert_eq!(String::from_utf8_lossy(&scene.azure.requests().pop().unwrap().body), sent);
    }
    // Without a limit of the caller's, the gateway sets one, and no byte else.
    let given = format!("{{{rest}}}");
    assert_eq!(scene.gateway.call(raw(path, key, given)).await.unwrap().status, 200);
    let sent = scene.azure.requests().pop().unwrap();
    let sent = String::from_utf8_lossy(&sent.body).into_owned();
    let cap = sent.strip_prefix("{\"max_tokens\":").unwrap().strip_suffix(&format!(",{rest}}}")).unwrap();
    assert!(cap.parse::<u64>().unwrap() > 1000, "{sent}");
}

#[tokio::test]
async fn a_soft_ceiling_leaves_bodies_alone_but_for_the_usage() {
    let scene = Scene::start("[tiers.default]\nceiling = \"soft\"\n").await.unwrap();
    let key = scene.acme.primary.as_str();
    let body = r#"{"model":"chat","input":"hi","stream":true}"#;
    assert_eq!(scene.gateway.call(raw("/openai/v1/responses", key, body)).await.unwrap().status, 200);
    assert_eq!(scene.azure.requests().pop().unwrap().body, body);
}

#[tokio::test]
async fn under_a_soft_ceiling_an_answer_without_usage_is_paid_for_too() {
    let scene = Scene::start("[tiers.default]\nceiling = \"soft\"\n").await.unwrap();
    let key = scene.acme.primary.as_str();
    scene.azure.behave(Behaviour { usage: UsageReport::Missing, ..Behaviour::default() });
    let mut body = user_says("hi");
    body["max_tokens"] = 40.into();
    assert_eq!(scene.gateway.call(chat("chat", key, &body).unwrap()).await.unwrap().status, 200);
    let paid = scene.gateway.metric("aoai_completion_tokens_total", &[("tenant", "acme")]).await.unwrap();
    assert_eq!(paid, 40.0, "as many as it could have had: fewer than answers are taken to need");
}
