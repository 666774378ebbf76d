//! `[identity]` and `[[backends]]`: the Azure OpenAI resources behind the gateway and how it signs in to them.

use std::num::NonZeroU32;
use std::time::Duration;

use super::document::{Reported, Section};
use super::endpoint::Endpoint;
use super::error::Problem;
use super::value;
use crate::names::BackendName;

/// `[identity]`: how the gateway signs in to Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where its tokens come from.
    pub source: IdentitySource,
    /// The client ID of a user-assigned identity, where the system-assigned one is not meant.
    pub client_id: Option<String>,
}

/// Where identity tokens come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdentitySource {
    /// Workload identity where its variables are set, else the managed identity.
    #[default]
    Auto,
    /// The managed identity of the virtual machine or the App Service.
    Managed,
    /// The federated token of a Kubernetes service account.
    Workload,
    /// The person signed in with `az login`.
    Cli,
    /// No identity at all: every backend is on loopback.
    None,
}

/// One of `[[backends]]`: an Azure OpenAI resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// What logs and metrics call it.
    pub name: BackendName,
    /// Where it is.
    pub endpoint: Endpoint,
    /// What its identity tokens are asked for.
    pub scope: String,
    /// Lower numbers first; a higher one is used only when all lower ones are out.
    pub priority: u32,
    /// Its share among those of equal priority.
    pub weight: NonZeroU32,
    /// From the start of the request to the first byte of the response; by model where it is not configured.
    pub timeout: Option<Duration>,
    /// Between one chunk of a stream and the next; by model where it is not configured.
    pub stream_idle_timeout: Option<Duration>,
    /// From the first packet to the end of the TLS handshake.
    pub connect_timeout: Duration,
}

/// All backends that can be used, and the names of all that are listed.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) all: Vec<Backend>,
    pub(super) names: Vec<BackendName>,
}

/// Reads `[[backends]]`.
pub(super) fn read_all(root: &mut Section<'_>) -> Backends {
    let mut names = Vec::new();
    let all = root.each("backends", |section| {
        let name = section.required("name", |name| Ok(BackendName::new(value::text(name)?)?));
        if let Ok(name) = &name {
            if names.contains(name) {
                section.report_at(&["name"], Problem::Twice(name.to_string()));
            }
            names.push(name.clone());
        }
        Backend::read(section, name)
    });
    if names.is_empty() && all.is_empty() {
        root.report_at(&["backends"], Problem::Empty);
    }
    Backends { all, names }
}

impl Backend {
    fn read(section: &mut Section<'_>, name: Result<BackendName, Reported>) -> Result<Self, Reported> {
        let endpoint = section.required("endpoint", |url| Ok(Endpoint::parse(value::text(url)?)?));
        let scope = section.optional("scope", value::printable);
        let priority = section.or("priority", DEFAULT_PRIORITY, value::count32).get();
        let weight = section.or("weight", DEFAULT_WEIGHT, value::count32);
        let timeout = section.optional("timeout", value::duration);
        let stream_idle_timeout = section.optional("stream_idle_timeout", value::duration);
        let connect_timeout = section.or("connect_timeout", DEFAULT_CONNECT_TIMEOUT, value::duration);
        Ok(Self {
            name: name?,
            endpoint: endpoint?,
            scope: scope.unwrap_or_else(|| DEFAULT_SCOPE.to_owned()),
            priority,
            weight,
            timeout,
            stream_idle_timeout,
            connect_timeout,
        })
    }
}

impl Identity {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let sources = value::choice(&[
            ("auto", IdentitySource::Auto),
            ("managed", IdentitySource::Managed),
            ("workload", IdentitySource::Workload),
            ("cli", IdentitySource::Cli),
            ("none", IdentitySource::None),
        ]);
        Self {
            source: section.or("source", IdentitySource::default(), sources),
            client_id: section.optional("client_id", value::printable),
        }
    }
}

/// What Azure OpenAI's tokens are asked for in the public cloud.
const DEFAULT_SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const DEFAULT_PRIORITY: NonZeroU32 = NonZeroU32::MIN;
const DEFAULT_WEIGHT: NonZeroU32 = NonZeroU32::MIN;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
