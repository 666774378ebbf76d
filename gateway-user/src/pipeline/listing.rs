//! What the gateway answers itself: the caller's deployments as OpenAI's and Azure's APIs list them, and its own health.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{Caller, ReplyBody, Visit};
use crate::gateway::Deployment;
use crate::reply::Refusal;
use crate::request::Route;
use crate::session::OpenCall;

impl Visit<'_> {
    /// The caller's deployments, in the shape that the route asks for.
    pub(super) fn listing(
        &self,
        route: Route<'_>,
        caller: &Caller,
        open: &OpenCall,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let mut allowed = self.snapshot.allowed(&caller.tenant);
        let body = match route {
            Route::Model(id) => {
                let deployment = allowed.find(|deployment| deployment.name.as_str() == id);
                model(deployment.ok_or(Refusal::UnknownDeployment)?)
            }
            Route::Deployments => list(allowed.map(|allowed| deployment(allowed)).collect()),
            Route::Models | Route::Health | Route::Call { .. } => {
                list(allowed.map(|allowed| model(allowed)).collect())
            }
        };
        self.session.gateway.metrics.request(self.tenant.as_ref(), None, 200, "");
        self.accepted(&caller.tenant.name);
        let mut response = self.own(StatusCode::OK, Bytes::from(body.to_string()), open);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// What a load balancer is told that asks whether to send callers here. Says nothing of the gateway, and serves nobody:
    /// it counts for its source's rate alone.
    pub(super) fn health(&self, open: &OpenCall) -> Response<ReplyBody> {
        let leaving = self.session.gateway.is_leaving();
        let status = if leaving { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        self.own(status, Bytes::new(), open)
    }

    /// The answer to a browser that asks whether its page may call. It asks without the page's key.
    pub(super) fn preflight(&self, headers: HeaderMap, open: &OpenCall) -> Response<ReplyBody> {
        let mut response = self.own(StatusCode::NO_CONTENT, Bytes::new(), open);
        response.headers_mut().extend(headers);
        response
    }
}

fn list(data: Vec<Value>) -> Value {
    json!({"object": "list", "data": data})
}

/// As OpenAI's API describes a model ("The model object").
fn model(deployment: &Deployment) -> Value {
    json!({"id": deployment.name.as_str(), "object": "model", "created": 0, "owned_by": "azure-openai"})
}

/// As Azure's API described a deployment (version 2022-12-01, "Deployments - List").
fn deployment(deployment: &Deployment) -> Value {
    json!({
        "id": deployment.name.as_str(),
        "model": deployment.model.as_str(),
        "object": "deployment",
        "status": "succeeded",
        "owner": "organization-owner",
        "scale_settings": {"scale_type": "standard"},
        "created_at": 0,
        "updated_at": 0,
    })
}
