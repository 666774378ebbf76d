//! Where identity tokens come from: which of the sources it is, and Azure's library set up for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::http::ClientOptions;
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::attempt::OneAttempt;
use super::reason::{self, Cause, WEBHOOK};
use crate::config::{Identity, IdentitySource};

/// Where tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Entra, for the federated token of a Kubernetes service account.
    Workload,
    /// The instance metadata of a virtual machine.
    VirtualMachine,
    /// The endpoint that App Service and its kin put into `IDENTITY_ENDPOINT`.
    AppService,
    /// `az`, as the person that is signed in.
    Cli,
}

impl Source {
    /// The word of `identity.source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::VirtualMachine | Self::AppService => "managed",
            Self::Cli => "cli",
        }
    }
}

/// What gives tokens.
#[derive(Debug)]
pub struct Credential {
    library: Arc<dyn TokenCredential>,
    source: Source,
    client_id: Option<String>,
    /// Whether nothing but the environment chose the source.
    by_itself: bool,
}

/// Why there is nothing that could give tokens.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A workload identity without its variables.
    #[error("the source is a workload identity, and {} not set: {WEBHOOK}", listed(.0))]
    NoVariables(Vec<&'static str>),
    /// A workload identity without its token.
    #[error("AZURE_FEDERATED_TOKEN_FILE names {}, which cannot be read: {error}; {WEBHOOK}", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What the library says of values that it does not take.
    #[error("{}", reason::sentence(&.0.to_string()))]
    Library(#[from] azure_core::Error),
}

impl Credential {
    /// Makes what the configuration names; nothing for the simulator.
    ///
    /// # Errors
    /// When the environment lacks what the source needs.
    pub fn new(identity: &Identity) -> Result<Option<Arc<Self>>, IdentityError> {
        let by_itself = identity.source == IdentitySource::Auto;
        let Some(source) = chosen(identity.source, is_set) else { return Ok(None) };
        let client_id = identity.client_id.clone();
        let library: Arc<dyn TokenCredential> = match source {
            Source::Cli => AzureCliCredential::new(None)?,
            Source::Workload => {
                check_workload(client_id.is_some())?;
                let credential_options =
                    ClientAssertionCredentialOptions { client_options: client_options() };
                WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    credential_options,
                    client_id: client_id.clone(),
                    ..Default::default()
                }))?
            }
            Source::VirtualMachine | Source::AppService => {
                let user_assigned_id = client_id.clone().map(UserAssignedId::ClientId);
                let options =
                    ManagedIdentityCredentialOptions { user_assigned_id, client_options: client_options() };
                ManagedIdentityCredential::new(Some(options))?
            }
        };
        tracing::info!(
            source = source.as_str(),
            because = because(source, by_itself),
            client_id = client_id.as_deref(),
            "source of identity tokens"
        );
        Ok(Some(Arc::new(Self { library, source, client_id, by_itself })))
    }

    /// Where its tokens come from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Asks for a token, once.
    pub(super) async fn token(&self, scope: &str) -> Result<AccessToken, Cause> {
        self.library.get_token(&[scope], None).await.map_err(|error| Cause::of(&error))
    }

    /// Why there is no token, and what to do.
    pub(super) fn explain(&self, cause: &Cause) -> String {
        let reason = reason::explain(self.source, self.client_id.as_deref(), cause);
        // A pod without the webhook's variables is taken for a virtual machine.
        if self.by_itself && self.source == Source::VirtualMachine && is_set("KUBERNETES_SERVICE_HOST") {
            return format!(
                "{reason}; for a workload identity AZURE_FEDERATED_TOKEN_FILE is not set: {WEBHOOK}"
            );
        }
        reason
    }

    /// One that asks this instead of Azure.
    #[cfg(test)]
    pub(super) fn of(library: Arc<dyn TokenCredential>, source: Source) -> Arc<Self> {
        Arc::new(Self { library, source, client_id: None, by_itself: false })
    }
}

/// The source that is meant where the variables are as `is_set` says; the managed ones are told apart as the library does.
fn chosen(source: IdentitySource, is_set: impl Fn(&str) -> bool) -> Option<Source> {
    let managed = || if is_set("IDENTITY_ENDPOINT") { Source::AppService } else { Source::VirtualMachine };
    match source {
        IdentitySource::None => None,
        IdentitySource::Cli => Some(Source::Cli),
        IdentitySource::Workload => Some(Source::Workload),
        IdentitySource::Managed => Some(managed()),
        IdentitySource::Auto if is_set(TOKEN_FILE) => Some(Source::Workload),
        IdentitySource::Auto => Some(managed()),
    }
}

const fn because(source: Source, by_itself: bool) -> &'static str {
    match source {
        _ if !by_itself => "identity.source says so",
        Source::Workload => "AZURE_FEDERATED_TOKEN_FILE is set",
        Source::AppService => "AZURE_FEDERATED_TOKEN_FILE is not set, and IDENTITY_ENDPOINT is",
        Source::VirtualMachine | Source::Cli => {
            "neither AZURE_FEDERATED_TOKEN_FILE nor IDENTITY_ENDPOINT is set"
        }
    }
}

/// The library tells of one variable at a time, and of options that are not this program's.
fn check_workload(has_client_id: bool) -> Result<(), IdentityError> {
    let needed = [TENANT, TOKEN_FILE].into_iter().chain((!has_client_id).then_some(CLIENT));
    let missing: Vec<_> = needed.filter(|name| !is_set(name)).collect();
    if !missing.is_empty() {
        return Err(IdentityError::NoVariables(missing));
    }
    let path = PathBuf::from(std::env::var_os(TOKEN_FILE).unwrap_or_default());
    match std::fs::File::open(&path) {
        Ok(_readable) => Ok(()),
        Err(error) => Err(IdentityError::NoToken { path, error }),
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn listed(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        [most @ .., last] => format!("{} and {last} are", most.join(", ")),
        [] => "nothing is".to_owned(),
    }
}

fn client_options() -> ClientOptions {
    ClientOptions { per_try_policies: vec![Arc::new(OneAttempt)], ..Default::default() }
}

const TENANT: &str = "AZURE_TENANT_ID";
const CLIENT: &str = "AZURE_CLIENT_ID";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_where_the_configuration_does_not() {
        let with = |set: &'static [&str]| move |name: &str| set.contains(&name);
        let auto = IdentitySource::Auto;
        assert_eq!(chosen(auto, with(&[TOKEN_FILE, "IDENTITY_ENDPOINT"])), Some(Source::Workload));
        assert_eq!(chosen(auto, with(&["IDENTITY_ENDPOINT"])), Some(Source::AppService));
        assert_eq!(chosen(auto, with(&[])), Some(Source::VirtualMachine));
        assert_eq!(chosen(IdentitySource::Managed, with(&[TOKEN_FILE])), Some(Source::VirtualMachine));
        assert_eq!(chosen(IdentitySource::None, with(&[TOKEN_FILE])), None);
    }

    #[test]
    fn missing_variables_are_named_with_what_sets_them() {
        let error = IdentityError::NoVariables(vec![TENANT, TOKEN_FILE, CLIENT]).to_string();
        assert!(
            error.contains("AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE and AZURE_CLIENT_ID are not set"),
            "{error}"
        );
        assert!(error.contains("azure-workload-identity webhook"), "{error}");
        assert!(error.contains("azure.workload.identity/use: \"true\""), "{error}");
    }
}
