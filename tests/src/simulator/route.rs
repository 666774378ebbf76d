//! What is called: both URL shapes, their API versions, and Azure's names of the operations.

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `chat/completions`
    Chat,
    /// `completions`
    Completions,
    /// `embeddings`
    Embeddings,
    /// `responses`
    Responses,
}

/// A route and, where the path names it, the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) api: Api,
    /// Where the path has one, the body's `model` is not looked at.
    pub(crate) deployment: Option<String>,
    pub(crate) version: Version,
}

/// Which version of the API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `/openai/v1/`, which is always the newest.
    V1,
    /// The date of `api-version` as a number: 20241021 for `2024-10-21` and for `2024-10-21-preview`.
    Dated(u32),
}

impl Route {
    /// The route of a request, or none.
    pub(crate) fn of(path: &str, query: Option<&str>) -> Option<Self> {
        let path = path.strip_prefix("/openai/")?;
        if let Some(api) = path.strip_prefix("v1/") {
            return Some(Self { api: Api::of(api)?, deployment: None, version: Version::V1 });
        }
        let (_, version) = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .find(|(key, value)| key == "api-version" && !value.is_empty())?;
        let version = Version::dated(&version);
        if path == "responses" {
            return Some(Self { api: Api::Responses, deployment: None, version });
        }
        let (deployment, api) = path.strip_prefix("deployments/")?.split_once('/')?;
        let api = Api::of(api).filter(|&api| api != Api::Responses)?;
        (!deployment.is_empty()).then(|| Self { api, deployment: Some(deployment.to_owned()), version })
    }
}

impl Version {
    /// The version of that name. Azure knows no name without a date; here it is taken for the newest.
    fn dated(name: &str) -> Self {
        let date = name.get(..10).map(|date| date.replace('-', ""));
        Self::Dated(date.and_then(|date| date.parse().ok()).unwrap_or(u32::MAX))
    }

    /// Whether it is that version or a later one.
    pub(crate) fn since(self, date: u32) -> bool {
        match self {
            Self::V1 => true,
            Self::Dated(of) => of >= date,
        }
    }
}

impl Api {
    fn of(path: &str) -> Option<Self> {
        match path {
            "chat/completions" => Some(Self::Chat),
            "completions" => Some(Self::Completions),
            "embeddings" => Some(Self::Embeddings),
            "responses" => Some(Self::Responses),
            _ => None,
        }
    }

    /// The model that answers when nothing else is said.
    pub(crate) const fn model(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "gpt-4o-mini-2024-07-18",
            Self::Completions => "gpt-35-turbo-instruct",
            Self::Embeddings => "text-embedding-3-small",
        }
    }

    /// What the role of a caller must allow, below `Microsoft.CognitiveServices/accounts/OpenAI/` (Azure RBAC,
    /// data actions of `Cognitive Services OpenAI User`).
    pub(crate) const fn data_action(self) -> &'static str {
        match self {
            Self::Chat => "deployments/chat/completions/action",
            Self::Completions => "deployments/completions/action",
            Self::Embeddings => "deployments/embeddings/action",
            Self::Responses => "responses/write",
        }
    }

    /// Its path as Azure's errors name it.
    pub(crate) fn template(self, version: Version) -> String {
        let path = match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
        };
        match (version, self) {
            (Version::V1, _) => format!("/openai/v1/{path}"),
            (Version::Dated(_), Self::Responses) => format!("/openai/{path}"),
            (Version::Dated(_), Self::Chat | Self::Completions | Self::Embeddings) => {
                format!("/openai/deployments/{{deployment-id}}/{path}")
            }
        }
    }

    /// Azure's name of the operation, in its errors.
    pub(crate) const fn operation(self) -> &'static str {
        match self {
            Self::Chat => "ChatCompletions_Create",
            Self::Completions => "Completions_Create",
            Self::Embeddings => "Embeddings_Create",
            Self::Responses => "Responses_Create",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_url_shapes_lead_to_the_same_api() {
        let version = Some("api-version=2024-10-21");
        let classic = Route::of("/openai/deployments/chat/chat/completions", version).unwrap();
        let version_of = Version::Dated(20_241_021);
        assert_eq!(
            classic,
            Route { api: Api::Chat, deployment: Some("chat".to_owned()), version: version_of }
        );
        assert_eq!(Route::of("/openai/v1/chat/completions", None).unwrap().api, Api::Chat);
        assert_eq!(Route::of("/openai/responses", version).unwrap().api, Api::Responses);
    }

    #[test]
    fn versions_compare_by_their_dates() {
        let version = |name: &str| Route::of("/openai/responses", Some(name)).unwrap().version;
        assert!(version("api-version=2024-09-01-preview").since(20_240_901));
        assert!(!version("api-version=2024-08-01-preview").since(20_240_901));
        assert!(Version::V1.since(20_240_901));
    }

    #[test]
    fn a_path_without_its_version_or_deployment_is_no_route() {
        assert_eq!(Route::of("/openai/deployments/chat/chat/completions", None), None);
        assert_eq!(Route::of("/openai/deployments//embeddings", Some("api-version=1")), None);
        assert_eq!(Route::of("/openai/deployments/chat/responses", Some("api-version=1")), None);
        assert_eq!(Route::of("/v1/chat/completions", None), None);
    }
}
