//! Answers one request: identity endpoints, then route, token, behaviour, answer.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::Value;

use super::answer::Heading;
use super::behaviour::{Behaviour, Fault};
use super::body::{Body, Broken, Reset, Stream};
use super::call::{Call, Rules, steering};
use super::deployments::{Deployment, Deployments};
use super::fixed::Fixed;
use super::identity::{Endpoint, Identity};
use super::ids::{Ids, Trace};
use super::ledger::{Entry, Ledger};
use super::model::{events, generate, whole};
use super::quota::{Quotas, unlimited};
use super::record::{Recorded, Recorder};
use super::refusal::Refusal;
use super::route::{Api, Route};
use super::stored::Stored;
use super::{Options, responses};

/// Everything that the connections of one simulator share.
#[derive(Debug)]
pub(crate) struct Azure {
    pub(crate) identity: Identity,
    pub(crate) ledger: Ledger,
    pub(crate) calls: Recorder,
    pub(crate) identity_calls: Recorder,
    pub(crate) behaviours: Mutex<Behaviours>,
    pub(crate) deployments: Deployments,
    pub(crate) quotas: Quotas,
    stored: Stored,
    check_tokens: bool,
    fixed: Option<Fixed>,
    ids: Ids,
}

/// Who behaves how.
#[derive(Debug, Default)]
pub(crate) struct Behaviours {
    pub(crate) default: Behaviour,
    pub(crate) by_deployment: HashMap<String, Behaviour>,
    /// The next calls, before anything else; one each.
    pub(crate) next: std::collections::VecDeque<Behaviour>,
}

/// What is known of a request's connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) reset: Reset,
}

impl Azure {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            identity: Identity::new(options.token_lifetime),
            ledger: Ledger::new(options.timed),
            calls: Recorder::new(options.recorded),
            identity_calls: Recorder::new(options.recorded),
            behaviours: Mutex::new(Behaviours {
                default: options.behaviour.clone(),
                ..Behaviours::default()
            }),
            deployments: Deployments::default(),
            quotas: Quotas::default(),
            stored: Stored::default(),
            check_tokens: options.check_tokens,
            fixed: options.fixed_answers.then(|| Fixed::new(&options.behaviour)),
            ids: Ids::new(),
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// When the connection shall end without an answer.
    pub(crate) async fn answer(
        &self,
        connection: Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Broken> {
        let (parts, body) = request.into_parts();
        let (body, complete) = read(body).await;
        let endpoint = Endpoint::of(&parts.method, parts.uri.path());
        let trace = Trace::new(&self.ids, &parts.headers);
        let recorder = if endpoint.is_some() { &self.identity_calls } else { &self.calls };
        if recorder.is_on() {
            recorder.push(Recorded {
                method: parts.method.clone(),
                target: parts.uri.to_string(),
                headers: parts.headers.clone(),
                body: body.clone(),
                complete,
                connection: connection.number,
                request_id: trace.request_id.clone(),
                apim_request_id: trace.apim_request_id.clone(),
            });
        }
        if !complete {
            return Err(Broken);
        }
        if let Some(endpoint) = endpoint {
            return Ok(self.identity.answer(endpoint, &parts, &body).await.map(Body::from));
        }
        let mut response = match self.call(&connection, &parts, &body).await {
            Ok(response) => response,
            Err(Stopped::Refused(refusal)) => refusal.into_response().map(Body::from),
            Err(Stopped::Broken(broken)) => return Err(broken),
        };
        trace.add_to(response.headers_mut());
        self.add_headers(response.headers_mut());
        Ok(response)
    }

    async fn call(
        &self,
        connection: &Connection,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Body>, Stopped> {
        let route = Route::of(parts.uri.path(), parts.uri.query()).ok_or_else(Refusal::unknown_route)?;
        if parts.method != http::Method::POST {
            return Err(Refusal::unknown_route().into());
        }
        if self.check_tokens {
            self.authorize(parts)?;
        }
        if let Some(answer) = self.fixed.as_ref().and_then(|fixed| fixed.answer(route.api, body)) {
            return Ok(self.fixed_answer(&route, answer));
        }
        let body: Value = serde_json::from_slice(body).map_err(|problem| Refusal::not_json(&problem))?;
        let deployment = match route.deployment {
            // Azure does not look at the body's model then, whatever it is.
            Some(deployment) => deployment,
            None => body
                .get("model")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| Refusal::invalid("model", None, "you must provide a model parameter"))?,
        };
        let deployment = self.deployments.find(deployment)?;
        let behaviour = self.behaviour(&deployment.name, route.api, &body)?;
        if behaviour.fault == Some(Fault::MissingRole) {
            return Err(Refusal::missing_role(route.api, route.version).into());
        }
        let rules = Rules { api: route.api, version: route.version, model: deployment.model };
        let call = Call::read(rules, body, &behaviour)?;
        if call.api == Api::Responses {
            self.stored.check(&call.body)?;
        }
        self.serve(connection, &deployment, call, behaviour).await
    }

    async fn serve(
        &self,
        connection: &Connection,
        deployment: &Deployment,
        call: Call,
        mut behaviour: Behaviour,
    ) -> Result<Response<Body>, Stopped> {
        if let Some(refusal) = refusal(&behaviour, call.api) {
            return Err(refusal.into());
        }
        let standing = self.quotas.count(&deployment.name, call.counted_tokens());
        let standing = standing.map_err(|(standing, wait)| Refusal::over_quota(call.api, standing, wait))?;
        let entry = self.ledger.account(&deployment.name).open(call.prompt_tokens);
        tokio::time::sleep(behaviour.first_byte_delay).await;
        let entry = read_prompt(&behaviour, entry, connection)?;
        behaviour.model = behaviour.model.or_else(|| deployment.model_name.clone());
        let heading = Heading::new(self.ids.digits(), &call, &behaviour);
        if call.api == Api::Responses {
            self.stored.keep(responses::id(&heading), &call.body);
        }
        let body = if call.stream {
            Body::Stream(Box::new(Stream::new(
                events(&call, &heading, behaviour.fault),
                entry,
                &behaviour,
                connection.reset.clone(),
            )))
        } else {
            generate(&call, &behaviour, &entry).await;
            whole(&call, &heading, &behaviour, entry, &connection.reset)?
        };
        let mut response = Response::new(body);
        add_content_headers(response.headers_mut(), call.stream, &behaviour);
        if let Some(standing) = standing {
            standing.add_to(response.headers_mut());
        }
        if let Ok(name) = HeaderValue::from_str(&deployment.name) {
            response.headers_mut().insert("x-ms-deployment-name", name);
        }
        Ok(response)
    }

    fn authorize(&self, parts: &Parts) -> Result<(), Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let key_in_query = form_urlencoded::parse(query.as_bytes()).any(|(key, _)| KEYS.contains(&&*key));
        if key_in_query || KEYS.iter().any(|key| parts.headers.contains_key(*key)) {
            return Err(Refusal::unauthorized(
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.",
            ));
        }
        if self.identity.knows(&parts.headers) {
            return Ok(());
        }
        Err(Refusal::unauthorized(
            "Unauthorized. Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired.",
        ))
    }

    fn behaviour(&self, deployment: &str, api: Api, body: &Value) -> Result<Behaviour, Refusal> {
        let behaviour = {
            let mut behaviours = self.behaviours.lock();
            let set = |behaviours: &Behaviours| {
                behaviours.by_deployment.get(deployment).unwrap_or(&behaviours.default).clone()
            };
            behaviours.next.pop_front().unwrap_or_else(|| set(&behaviours))
        };
        steering(api, body).try_fold(behaviour, |behaviour, text| {
            behaviour.steered_by(text).map_err(|problem| {
                Refusal::invalid(
                    "user",
                    Some("simulator"),
                    format!("the sim: instruction is wrong: {problem}"),
                )
            })
        })
    }

    fn fixed_answer(&self, route: &Route, (bytes, input, output): (Bytes, u64, u64)) -> Response<Body> {
        let mut entry = self.ledger.account(route.deployment.as_deref().unwrap_or("v1")).open(input);
        entry.generated(output);
        entry.finish();
        let mut response = Response::new(Body::from(bytes));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if !headers.contains_key("x-ratelimit-limit-tokens") {
            unlimited(self.ids.given()).add_to(headers);
        }
    }
}

/// Why a call is not answered as asked.
enum Stopped {
    Refused(Refusal),
    Broken(Broken),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

/// The body, and whether it came whole.
async fn read(mut body: Incoming) -> (Bytes, bool) {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return ([first, rest.freeze()].concat().into(), false) };
        let Ok(data) = frame.into_data() else { continue };
        // Most bodies are one frame, and need no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
        if first.len() + rest.len() > MAX_BODY_BYTES {
            return (first, false);
        }
    }
    let whole = if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() };
    (whole, true)
}

/// What happens once the prompt was processed and before there is a response head.
fn read_prompt(behaviour: &Behaviour, mut entry: Entry, connection: &Connection) -> Result<Entry, Stopped> {
    match behaviour.fault {
        Some(Fault::ContentFilter) => {
            entry.finish();
            Err(Refusal::content_filter().into())
        }
        Some(Fault::Reset { after_chunks: 0 }) => {
            connection.reset.demand();
            Err(Stopped::Broken(Broken))
        }
        _ => Ok(entry),
    }
}

fn refusal(behaviour: &Behaviour, api: Api) -> Option<Refusal> {
    match behaviour.fault? {
        Fault::RateLimited { retry_after_ms } => {
            Some(Refusal::rate_limited(api, Duration::from_millis(retry_after_ms)))
        }
        Fault::DeploymentNotFound => Some(Refusal::unknown_deployment()),
        Fault::ServerError => Some(Refusal::broken(StatusCode::INTERNAL_SERVER_ERROR)),
        Fault::Unavailable => Some(Refusal::broken(StatusCode::SERVICE_UNAVAILABLE)),
        Fault::ContentFilter
        | Fault::Reset { .. }
        | Fault::Truncated { .. }
        | Fault::Stall { .. }
        | Fault::StreamError { .. }
        | Fault::ResponseFailed { .. }
        | Fault::MissingRole => None,
    }
}

/// Says what kind the answer is, or what it was told to pass for.
fn add_content_headers(headers: &mut HeaderMap, stream: bool, behaviour: &Behaviour) {
    let kind = match &behaviour.content_type {
        Some(kind) if stream => kind,
        _ if stream => "text/event-stream; charset=utf-8",
        _ => "application/json",
    };
    if let Ok(kind) = HeaderValue::from_str(kind)
        && !kind.is_empty()
    {
        headers.insert(CONTENT_TYPE, kind);
    }
    if behaviour.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
}

/// What callers' keys come in; Azure must never see one.
const KEYS: [&str; 3] = ["api-key", "ocp-apim-subscription-key", "subscription-key"];
const MAX_BODY_BYTES: usize = 64 << 20;
const HEADERS: [(&str, &str); 4] = [
    ("x-ms-region", "East US 2"),
    ("x-ms-rai-invoked", "true"),
    ("x-content-type-options", "nosniff"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
];
