//! The route table. A route is metered or it does not exist.

use http::uri::PathAndQuery;
use http::{Method, Uri};

use crate::api::Api;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// A metered call.
    Call {
        /// What is asked for.
        api: Api,
        /// The deployment, where the path names it; else the body's `model` does.
        deployment: Option<&'a str>,
    },
    /// `GET /openai/v1/models` and `GET /openai/models`: the caller's own deployments, answered here.
    Models,
    /// `GET /openai/v1/models/{id}`: one of them.
    Model(&'a str),
    /// `GET /openai/deployments`: the same as Azure listed them until API version 2022-12-01.
    Deployments,
    /// `GET` or `HEAD` of `/` and `/healthz`: asked by load balancers, without a key.
    Health,
}

impl<'a> Route<'a> {
    /// The route of a request. Paths are compared as they are written: one that is spelled in another way (escaped,
    /// with double slashes or dots) is not among them, so nothing can be read differently upstream.
    #[must_use]
    pub fn of(method: &Method, path: &'a str) -> Option<Self> {
        if matches!(path, "/" | "/healthz") {
            return (method == Method::GET || method == Method::HEAD).then_some(Self::Health);
        }
        let rest = path.strip_prefix("/openai/")?;
        if method == Method::GET {
            return Self::listing(rest);
        }
        if method != Method::POST {
            return None;
        }
        if let Some(rest) = rest.strip_prefix("deployments/") {
            let (deployment, operation) = rest.split_once('/')?;
            let api = api_of(operation).filter(|api| *api != Api::Responses)?;
            return (!deployment.is_empty()).then_some(Self::Call { api, deployment: Some(deployment) });
        }
        let api = match rest.strip_prefix("v1/") {
            Some(operation) => api_of(operation)?,
            None => api_of(rest).filter(|api| *api == Api::Responses)?,
        };
        Some(Self::Call { api, deployment: None })
    }

    fn listing(rest: &'a str) -> Option<Self> {
        match rest {
            "v1/models" | "models" => Some(Self::Models),
            "deployments" => Some(Self::Deployments),
            _ => {
                let id = rest.strip_prefix("v1/models/")?;
                (!id.is_empty() && !id.contains('/')).then_some(Self::Model(id))
            }
        }
    }
}

fn api_of(operation: &str) -> Option<Api> {
    match operation {
        "chat/completions" => Some(Api::ChatCompletions),
        "completions" => Some(Api::Completions),
        "embeddings" => Some(Api::Embeddings),
        "responses" => Some(Api::Responses),
        _ => None,
    }
}

/// A request's target without a second slash at its start: an endpoint that is configured with a slash at its end makes
/// clients send one, and Azure serves it. What goes upstream has one slash, too.
#[must_use]
pub fn with_one_slash(uri: Uri) -> Uri {
    if !uri.path().starts_with("//") {
        return uri;
    }
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = format!("/{}", target.trim_start_matches('/'));
    PathAndQuery::try_from(target).map_or(uri, Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_slash_at_the_start_is_none() {
        for (given, read) in [
            ("//openai/v1/models?a=//b", "/openai/v1/models?a=//b"),
            ("///openai", "/openai"),
            ("/openai//v1", "/openai//v1"),
            ("/", "/"),
        ] {
            let uri = Uri::from(PathAndQuery::try_from(given).unwrap());
            assert_eq!(with_one_slash(uri).to_string(), read, "{given}");
        }
    }

    fn post(path: &str) -> Option<Route<'_>> {
        Route::of(&Method::POST, path)
    }

    #[test]
    fn both_url_shapes_are_routes() {
        let chat = Route::Call { api: Api::ChatCompletions, deployment: Some("chat") };
        assert_eq!(post("/openai/deployments/chat/chat/completions"), Some(chat));
        let embeddings = Route::Call { api: Api::Embeddings, deployment: None };
        assert_eq!(post("/openai/v1/embeddings"), Some(embeddings));
        let responses = Route::Call { api: Api::Responses, deployment: None };
        assert_eq!(post("/openai/responses"), Some(responses));
        assert_eq!(post("/openai/v1/responses"), Some(responses));
    }

    #[test]
    fn what_the_gateway_answers_itself_is_read_only() {
        for (path, route) in [
            ("/openai/v1/models", Route::Models),
            ("/openai/models", Route::Models),
            ("/openai/v1/models/chat", Route::Model("chat")),
            ("/openai/deployments", Route::Deployments),
            ("/", Route::Health),
            ("/healthz", Route::Health),
        ] {
            assert_eq!(Route::of(&Method::GET, path), Some(route), "{path}");
            assert_eq!(post(path), None, "{path}");
        }
        assert_eq!(Route::of(&Method::HEAD, "/healthz"), Some(Route::Health));
        for path in [
            "/openai/v1/models/",
            "/openai/v1/models/a/b",
            "/openai/models/chat",
            "/openai/deployments/",
            "/openai/deployments/chat",
            "/healthz/",
            "/readyz",
            "//",
        ] {
            assert_eq!(Route::of(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn everything_else_does_not_exist() {
        for path in [
            "/",
            "/openai",
            "/openai/",
            "/openai/v1",
            "/openai/v1/",
            "/openai/v1/chat",
            "/openai/v1/files",
            "/openai/v1/batches",
            "/openai/v1/chat/completions/",
            "/openai//v1/chat/completions",
            "/openai/deployments//chat/completions",
            "/openai/deployments/chat/responses",
            "/openai/deployments/chat/chat/completions/../../x",
            "/openai/chat/completions",
            "/openai/embeddings",
            "/openai/v1/responses/resp_1",
            "/openai/v1/realtime",
            "/OpenAI/v1/responses",
            "/openai/v1/models",
            "/openai/deployments/a/b/chat/completions",
        ] {
            assert_eq!(post(path), None, "{path}");
        }
        for method in
            [Method::PUT, Method::GET, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::CONNECT]
        {
            assert_eq!(Route::of(&method, "/openai/v1/responses"), None);
        }
    }
}
