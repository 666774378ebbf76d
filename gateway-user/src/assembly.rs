//! From files to a running configuration, at start and at every reload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use rustls::{ClientConfig, ServerConfig};

use crate::config::{self, Config, ConfigErrors};
use crate::limits::Clock;
use crate::metrics::{BackendLabel, Metrics};
use crate::supervise::Supervisor;
use crate::tenant::Directory;
use crate::tls::{self, TlsError};
use crate::upstream::backend::Backend;
use crate::upstream::identity::{self, TokenSlot};

/// All that a configuration's files hold.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The tenants.
    pub directory: Directory,
    /// The certificate.
    pub tls: ServerConfig,
}

/// Why files make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration or the tenants are wrong, a line for each problem.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The certificate is.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Loaded {
    /// Reads every file that a configuration names.
    ///
    /// # Errors
    /// When any of them is missing or wrong.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let config = Config::load(path)?;
        let directory = Directory::load(&config.tenants, &config.tiers)?;
        let tls = tls::server(&config.listen)?;
        Ok(Self { config, directory, tls })
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        let listen = &self.config.listen;
        [Some(path), Some(self.config.tenants.path()), Some(&listen.certificate), Some(&listen.private_key)]
            .into_iter()
            .chain([listen.client_ca.as_deref()])
            .flatten()
            .map(Path::to_owned)
            .collect()
    }
}

/// Makes backends of configurations, with a token for each scope that is kept fresh for as long as a backend uses it.
#[derive(Debug)]
pub struct Backends {
    tls: Arc<ClientConfig>,
    credential: Option<Arc<dyn TokenCredential>>,
    slots: BTreeMap<String, Arc<TokenSlot>>,
    made: Vec<(config::Backend, Arc<Backend>)>,
    clock: Clock,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
}

impl Backends {
    /// Prepares the way to backends under the identity that the first configuration names.
    ///
    /// # Errors
    /// When that identity is not to be had in this environment.
    pub fn new(
        config: &Config,
        tls: ClientConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Result<Self, azure_core::Error> {
        let credential = identity::credential(&config.identity)?;
        Ok(Self {
            tls: Arc::new(tls),
            credential,
            slots: BTreeMap::new(),
            made: Vec::new(),
            clock,
            metrics,
            supervisor: supervisor.clone(),
        })
    }

    /// The backends of a configuration. One that is configured as before stays what it is, with what is known of it. Must
    /// be called on a runtime: tokens are fetched in its background.
    pub fn of(&mut self, config: &Config) -> Vec<Arc<Backend>> {
        let made: Vec<_> =
            config.backends.iter().map(|backend| (backend.clone(), self.backend(backend))).collect();
        // What no configuration names any more is forgotten, which ends a token's renewal.
        for (gone, _) in self.made.iter().filter(|(old, _)| made.iter().all(|(new, _)| new.name != old.name))
        {
            self.metrics.backend_up.remove(&BackendLabel { backend: gone.name.clone() });
        }
        self.slots.retain(|scope, _| config.backends.iter().any(|backend| backend.scope == *scope));
        self.made = made;
        self.made.iter().map(|(_, backend)| Arc::clone(backend)).collect()
    }

    fn backend(&mut self, backend: &config::Backend) -> Arc<Backend> {
        if let Some((_, made)) = self.made.iter().find(|(made_of, _)| made_of == backend) {
            return Arc::clone(made);
        }
        let token = self.slot(&backend.scope);
        // One that it replaces may still have something to say, which must not be taken for this one's.
        let label = BackendLabel { backend: backend.name.clone() };
        self.metrics.backend_up.remove(&label);
        let up = self.metrics.backend_up.get_or_create(&label).clone();
        Arc::new(Backend::new(backend, &self.tls, token, self.clock, up))
    }

    fn slot(&mut self, scope: &str) -> Option<Arc<TokenSlot>> {
        let credential = self.credential.as_ref()?;
        if let Some(slot) = self.slots.get(scope) {
            return Some(Arc::clone(slot));
        }
        let slot = Arc::new(TokenSlot::default());
        let fresh = identity::keep_fresh(
            Arc::clone(&slot),
            Arc::clone(credential),
            scope.to_owned(),
            self.clock,
            Arc::clone(&self.metrics),
        );
        // It returns when no backend has the slot any more.
        drop(self.supervisor.task_until_done(format!("identity {scope}"), fresh));
        self.slots.insert(scope.to_owned(), Arc::clone(&slot));
        Some(slot)
    }
}
