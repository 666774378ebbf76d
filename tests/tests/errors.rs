//! Every row of the error table, end to end: status, body in both formats, headers and metrics.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

use std::time::Duration;

use bytes::Bytes;
use gateway_tests::harness::{
    Client, Config, Protocol, Reply, Scene, Streaming, Unheard, chat, post, user_says, wait_until,
};
use gateway_tests::simulator::{Behaviour, Fault, IdentityFault, Options, Simulator};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use serde_json::{Value, json};

/// What a refusal must look like.
struct Row<'a> {
    status: u16,
    error: &'a str,
    /// What the OpenAI format calls it.
    kind: &'a str,
    tenant: Option<&'a str>,
    limit: Option<Value>,
    waits: bool,
}

impl Row<'_> {
    /// Checks a refusal in the flat format or, where `openai` says so, in the other.
    fn check(&self, reply: &Reply, openai: bool) {
        let body = reply.json().unwrap();
        assert_eq!(reply.status, self.status, "{body}");
        let error = if openai { body.pointer("/error/code").unwrap() } else { &body["error"] };
        assert_eq!(error, self.error, "{body}");
        let message = if openai { &body["error"]["message"] } else { &body["message"] };
        assert!(message.as_str().is_some_and(|message| message.len() > 10), "{body}");
        if openai {
            assert_eq!(body["error"]["type"], self.kind, "{body}");
            assert_eq!(body["error"].get("param"), Some(&Value::Null), "{body}");
        }
        assert_eq!(body.get("tenant").and_then(Value::as_str), self.tenant, "{body}");
        assert_eq!(body.get("limit"), self.limit.as_ref(), "{body}");
        assert_eq!(reply.header("x-quota-reason"), Some(self.error));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("x-request-id").is_some_and(|id| !id.is_empty()));
        assert_eq!(reply.header("x-request-id"), reply.header("x-gateway-request-id"));
        let (seconds, milliseconds) = (reply.header("retry-after"), reply.header("retry-after-ms"));
        assert_eq!(body.get("retryAfter").and_then(Value::as_str), seconds, "{body}");
        assert_eq!(seconds.is_some(), self.waits, "{body}");
        if let (Some(seconds), Some(milliseconds)) = (seconds, milliseconds) {
            let (seconds, milliseconds): (u64, u64) =
                (seconds.parse().unwrap(), milliseconds.parse().unwrap());
            assert_eq!(seconds, milliseconds.div_ceil(1000), "whole seconds, rounded up");
            assert!(seconds > 0);
        } else {
            assert_eq!(milliseconds, None);
        }
    }
}

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";

/// Calls that no tenant's limit has to do with, and what they get.
async fn check_requests(openai: bool) {
    let format = if openai { "openai" } else { "flat" };
    let scene = Scene::start(&format!(
        "[errors]\nformat = \"{format}\"\n[listen]\nmax_body_bytes = 4096\n\
         [deployments.secret]\nmodel = \"gpt-4o-mini\"\n\
         [tiers.default]\ndeployments = [\"chat\", \"embed\"]\n"
    ))
    .await
    .unwrap();
    let acme = Some("acme");
    let site = scene.gateway.site();
    let suspended = site.add_tenant("suspended", None).unwrap();
    let removed = site.add_tenant("removed", None).unwrap();
    site.run(&["tenant", "suspend", "suspended"]).unwrap();
    site.run(&["tenant", "remove", "removed"]).unwrap();
    wait_until("the tenants are known", async || {
        scene.status_of("suspended").await.is_ok() && scene.status_of("removed").await.is_err()
    })
    .await
    .unwrap();
    let key = scene.acme.primary.as_str();
    let raw = |text: String| {
        let request = Request::post(CHAT).header("api-key", key).header(CONTENT_TYPE, "application/json");
        request.body(Bytes::from(text)).unwrap()
    };
    let says = user_says("hi");
    let auth = "authentication_error";
    let invalid = "invalid_request_error";
    let none: Option<Value> = None;
    let cases = [
        (chat("chat", "", &says).unwrap(), 401, "missing_tenant", auth, None, none.clone()),
        (chat("chat", "wrong", &says).unwrap(), 401, "invalid_subscription_key", auth, None, None),
        (
            chat("chat", &suspended.primary, &says).unwrap(),
            401,
            "invalid_subscription_key",
            auth,
            Some("suspended"),
            None,
        ),
        (chat("chat", &removed.secondary, &says).unwrap(), 401, "invalid_subscription_key", auth, None, None),
        (chat("nowhere", key, &says).unwrap(), 404, "unknown_deployment", invalid, acme, None),
        (chat("secret", key, &says).unwrap(), 403, "deployment_not_allowed", "permission_error", acme, None),
        (post("/openai/v1/files", key, &says).unwrap(), 404, "unknown_route", invalid, None, None),
        (raw("{\"messages\":".to_owned()), 400, "invalid_request", invalid, acme, None),
        (raw("[]".to_owned()), 400, "invalid_request", invalid, acme, None),
        (raw("{\"n\":1,\"n\":2}".to_owned()), 400, "invalid_request", invalid, acme, None),
        (raw("{\"stream\":1}".to_owned()), 400, "invalid_request", invalid, acme, None),
        (raw(" ".repeat(5000)), 413, "body_too_large", invalid, acme, Some(json!(4096))),
    ];
    for (request, status, error, kind, tenant, limit) in cases {
        let row = Row { status, error, kind, tenant, limit, waits: false };
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let labels =
                [("status", &*status.to_string()), ("reason", error), ("tenant", tenant.unwrap_or(""))];
            let before = scene.gateway.metric("gateway_requests_total", &labels).await.unwrap();
            let mut client = scene.gateway.connect(protocol).await.unwrap();
            row.check(&client.send(request.clone()).await.unwrap(), openai);
            let after = scene.gateway.metric("gateway_requests_total", &labels).await.unwrap();
            assert_eq!(after - before, 1.0, "{error}");
        }
    }
    assert_eq!(scene.azure.all_totals().calls, 0, "nothing of it went upstream");
    assert_eq!(scene.gateway.metric("gateway_throttled_total", &[]).await.unwrap(), 0.0);
    let labels = scene.gateway.metrics().await.unwrap();
    assert!(!labels.label_values("deployment").contains(&"nowhere"), "labels come from configuration");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn requests_are_refused_in_the_flat_format() {
    check_requests(false).await;
}

#[tokio::test]
async fn requests_are_refused_in_the_openai_format() {
    check_requests(true).await;
}

const TIERS: &str = r#"
[tiers.calls]
calls_per_minute = 1
[tiers.concurrent]
concurrent_calls = 1
[tiers.tokens]
tokens_per_minute = 100
[tiers.token_quota]
token_quota = { tokens = 30, period = "daily" }
[tiers.spend_quota]
spend_quota = { dollars = 0.00001, period = "hourly" }
"#;

/// Each of a tenant's limits, reached, and what the next call gets.
async fn check_limits(openai: bool) {
    let format = if openai { "openai" } else { "flat" };
    let scene = Scene::start(&format!("{TIERS}[errors]\nformat = \"{format}\"\n")).await.unwrap();
    let tiers = ["calls", "concurrent", "tokens", "token_quota", "spend_quota"];
    let keys = tiers.map(|tier| scene.gateway.site().add_tenant(tier, Some(tier)).unwrap().primary);
    wait_until("the tenants are known", async || scene.status_of("spend_quota").await.is_ok()).await.unwrap();
    let says = user_says("hi");
    let limit = "rate_limit_error";
    let permission = "permission_error";
    let rows = [
        ("calls", 429, "rate_limit", limit, json!(1), true),
        ("concurrent", 429, "concurrency_limit", limit, json!(1), true),
        ("tokens", 429, "token_budget_exceeded", limit, json!(100), true),
        ("token_quota", 403, "token_quota_exceeded", permission, json!(30), true),
        ("spend_quota", 403, "spend_quota_exceeded", permission, json!(0.00001), true),
    ];
    for ((tenant, status, error, kind, limit, waits), key) in rows.into_iter().zip(&keys) {
        let mut streamed = says.clone();
        streamed["stream"] = true.into();
        let mut open = scene.gateway.connect(Protocol::Http1).await.unwrap();
        // Held until the next call is refused, which uses up the second row's limit.
        let mut open: Option<Streaming> = if tenant == "concurrent" {
            let fault = Some(Fault::Stall { after_chunks: 1 });
            scene.azure.behave_once(Behaviour { fault, ..Behaviour::default() });
            Some(open.stream(chat("chat", key, &streamed).unwrap()).await.unwrap())
        } else {
            None
        };
        if let Some(open) = &mut open {
            open.next().await.unwrap().unwrap();
        }
        // No limit here has room for as many.
        let mut refused = None;
        for _ in 0..20 {
            let reply = scene.gateway.call(chat("chat", key, &says).unwrap()).await.unwrap();
            if reply.status != 200 {
                refused = Some(reply);
                break;
            }
        }
        let reply = refused.unwrap();
        let row = Row { status, error, kind, tenant: Some(tenant), limit: Some(limit), waits };
        row.check(&reply, openai);
        let body = reply.json().unwrap();
        assert_eq!(body.get("periodEnds").is_some(), status == 403, "{body}");
        let labels = [("tenant", tenant), ("reason", error)];
        assert_eq!(scene.gateway.metric("gateway_throttled_total", &labels).await.unwrap(), 1.0);
        let labels = [labels[0], labels[1], ("deployment", "chat"), ("status", &*status.to_string())];
        assert_eq!(scene.gateway.metric("gateway_requests_total", &labels).await.unwrap(), 1.0);
    }
    // Random words, so that no estimate makes them few.
    let long = user_says(&"quick brown foxes ".repeat(60));
    let reply = scene.gateway.call(chat("chat", &keys[2], &long).unwrap()).await.unwrap();
    let row = Row {
        status: 413,
        error: "prompt_exceeds_budget",
        kind: "invalid_request_error",
        tenant: Some("tokens"),
        limit: Some(json!(100)),
        waits: false,
    };
    row.check(&reply, openai);
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn limits_refuse_in_the_flat_format() {
    check_limits(false).await;
}

#[tokio::test]
async fn limits_refuse_in_the_openai_format() {
    check_limits(true).await;
}

/// The same call, made to the simulator itself.
async fn direct(azure: &Simulator, mut request: Request<Bytes>) -> Reply {
    request.headers_mut().remove("api-key");
    let token = format!("Bearer {}", azure.token()).parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, token);
    Client::plain(azure.address()).await.unwrap().send(request).await.unwrap()
}

#[tokio::test]
async fn azures_own_errors_pass_unchanged() {
    let scene = Scene::start("").await.unwrap();
    let request = chat("chat", &scene.acme.primary, &user_says("hi")).unwrap();
    for fault in [
        Fault::RateLimited { retry_after_ms: 2500 },
        Fault::ContentFilter,
        Fault::DeploymentNotFound,
        Fault::ServerError,
        Fault::Unavailable,
    ] {
        scene.azure.behave(Behaviour { fault: Some(fault), ..Behaviour::default() });
        let (given, expected) =
            (scene.gateway.call(request.clone()).await.unwrap(), direct(&scene.azure, request.clone()).await);
        assert_eq!(given.status, expected.status);
        assert_eq!(given.body, expected.body);
        for header in ["content-type", "retry-after", "retry-after-ms", "x-ms-region"] {
            assert_eq!(given.header(header), expected.header(header), "{header} of {fault:?}");
        }
        let throttled = expected.status == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(given.header("x-quota-reason"), throttled.then_some("upstream"), "{fault:?}");
        let status = expected.status.as_str().to_owned();
        let labels = [("tenant", "acme"), ("deployment", "chat"), ("status", &*status)];
        assert_eq!(scene.gateway.metric("gateway_requests_total", &labels).await.unwrap(), 1.0, "{fault:?}");
    }
    assert_eq!(scene.gateway.metric("gateway_throttled_total", &[]).await.unwrap(), 0.0);
    // Of all these only the filter has read the prompt.
    let billed = scene.gateway.metric("aoai_tokens_consumed_total", &[("tenant", "acme")]).await.unwrap();
    assert!((1.0..50.0).contains(&billed), "{billed}");
    scene.azure.behave(Behaviour::default());
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_breaks_or_is_slow_is_told_apart() {
    let azure = Simulator::start(Options::default()).unwrap();
    let backends = format!(
        "[deployments.chat]\nbackends = [\"steady\"]\n\
         [deployments.late]\nmodel = \"gpt-4o-mini\"\nbackends = [\"hasty\"]\n\
         [[backends]]\nname = \"steady\"\nendpoint = \"{0}\"\n\
         [[backends]]\nname = \"hasty\"\nendpoint = \"{0}\"\ntimeout = \"3s\"\n",
        azure.endpoint()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    let hour = Duration::from_hours(1);
    for (deployment, behaviour, status, error) in [
        (
            "chat",
            Behaviour { fault: Some(Fault::Reset { after_chunks: 0 }), ..Behaviour::default() },
            502,
            "upstream_error",
        ),
        ("late", Behaviour { first_byte_delay: hour, ..Behaviour::default() }, 504, "upstream_timeout"),
        (
            "chat",
            Behaviour { fault: Some(Fault::Truncated { after_chunks: 1 }), ..Behaviour::default() },
            502,
            "upstream_error",
        ),
    ] {
        scene.azure.behave_once(behaviour);
        let request = chat(deployment, &scene.acme.primary, &user_says("hi")).unwrap();
        let reply = scene.gateway.call(request).await.unwrap();
        let row =
            Row { status, error, kind: "server_error", tenant: Some("acme"), limit: None, waits: false };
        row.check(&reply, false);
    }
    assert_eq!(
        scene.gateway.metric("gateway_requests_total", &[("reason", "upstream_error")]).await.unwrap(),
        2.0
    );
    scene.unharmed().await.unwrap();
    wait_until("the slow call is cancelled upstream", async || scene.azure.all_totals().open() == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_backend_that_is_down_is_passed_over_for_the_next() {
    let azure = Simulator::start(Options::default()).unwrap();
    let down = Unheard::new().unwrap();
    let backends = format!(
        "[deployments.stranded]\nmodel = \"gpt-4o-mini\"\nbackends = [\"down\"]\n\
         [[backends]]\nname = \"spare\"\nendpoint = \"{}\"\npriority = 2\n\
         [[backends]]\nname = \"down\"\nendpoint = \"http://{}\"\npriority = 1\n",
        azure.endpoint(),
        down.address()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&backends).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    scene.ready().await.unwrap();
    let key = &scene.acme.primary;
    let row = Row {
        status: 502,
        error: "upstream_error",
        kind: "server_error",
        tenant: Some("acme"),
        limit: None,
        waits: false,
    };
    for _ in 0..3 {
        let reply = scene.gateway.call(chat("stranded", key, &user_says("hi")).unwrap()).await.unwrap();
        row.check(&reply, false);
    }
    // From then on nobody waits to be told that it is down.
    let reply = scene.gateway.call(chat("stranded", key, &user_says("hi")).unwrap()).await.unwrap();
    Row { status: 503, error: "no_backend", waits: true, ..row }.check(&reply, false);
    let reply = scene.gateway.call(chat("chat", key, &user_says("hi")).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
    let settled = scene.gateway.metric("gateway_settled_total", &[("tenant", "acme")]).await.unwrap();
    assert_eq!(settled, 1.0, "a call that reached nobody costs nothing");
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn without_an_identity_token_calls_are_refused_and_the_gateway_is_not_ready() {
    let azure = Simulator::start(Options::default()).unwrap();
    azure.set_identity_fault(Some(IdentityFault::Hang));
    let config = Config::for_simulator(&azure).unwrap();
    let scene = Scene::of(azure, &config).unwrap();
    let reply =
        scene.gateway.call(chat("chat", &scene.acme.primary, &user_says("hi")).unwrap()).await.unwrap();
    let row = Row {
        status: 503,
        error: "identity_unavailable",
        kind: "server_error",
        tenant: Some("acme"),
        limit: None,
        waits: true,
    };
    row.check(&reply, false);
    assert_eq!(scene.gateway.admin_page("/readyz").await.unwrap().status, 503);
    assert_eq!(scene.gateway.admin_page("/healthz").await.unwrap().status, 200);
    scene.at_rest().await.unwrap();
    assert_eq!(scene.azure.requests().len(), 0);
}
