//! A path and a query: a route is one of those in the table as it is written, and nothing but the API version goes upstream.

use gateway_user::api::Api;
use gateway_user::request::{Route, query};
use http::Method;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    for method in [Method::POST, Method::GET, Method::HEAD] {
        if let Some(route) = Route::of(&method, path) {
            assert!(written(&method, route).iter().any(|one| one == path), "{path:?} is taken for {route:?}");
        }
    }
    assert_eq!(Route::of(&Method::PUT, path), None);

    let Ok(kept) = query::forwarded(query, &[]) else { return };
    assert_eq!(query::key(&kept), None, "{kept:?} of {query:?}");
    assert_eq!(query::deployments(&kept).next(), None, "{kept:?} of {query:?}");
    assert_eq!(query::api_version(&kept), query::api_version(query), "{kept:?} of {query:?}");
    assert_eq!(query::forwarded(&kept, &[]).as_deref(), Ok(&*kept), "{kept:?} of {query:?}");
}

/// The paths that a route may have, with that method.
fn written(method: &Method, route: Route<'_>) -> Vec<String> {
    let own = |is_right: bool, paths: &[&str]| {
        assert!(is_right, "{method}: {route:?}");
        paths.iter().map(|path| (*path).to_owned()).collect()
    };
    let is_get = method == Method::GET;
    let (api, deployment) = match route {
        Route::Health => return own(is_get || method == Method::HEAD, &["/", "/healthz"]),
        Route::Models => return own(is_get, &["/openai/v1/models", "/openai/models"]),
        Route::Deployments => return own(is_get, &["/openai/deployments"]),
        Route::Model(id) => {
            assert!(!id.is_empty() && !id.contains('/'));
            return own(is_get, &[&format!("/openai/v1/models/{id}")]);
        }
        Route::Call { api, deployment } => (api, deployment),
    };
    assert_eq!(method, Method::POST);
    let operation = match api {
        Api::ChatCompletions => "chat/completions",
        Api::Completions => "completions",
        Api::Embeddings => "embeddings",
        Api::Responses => "responses",
    };
    match deployment {
        Some(deployment) => {
            assert!(!deployment.is_empty() && !deployment.contains('/'));
            vec![format!("/openai/deployments/{deployment}/{operation}")]
        }
        None if api == Api::Responses => {
            vec!["/openai/responses".to_owned(), "/openai/v1/responses".to_owned()]
        }
        None => vec![format!("/openai/v1/{operation}")],
    }
}
