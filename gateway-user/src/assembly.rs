//! From files to a running configuration, at start and at every reload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};

use crate::config::{self, Config, ConfigErrors};
use crate::limits::Clock;
use crate::metrics::{BackendLabel, Metrics, ScopeLabel};
use crate::supervise::Supervisor;
use crate::tenant::Directory;
use crate::tls::{self, TlsError};
use crate::upstream::backend::{Backend, Gauges};
use crate::upstream::identity::{self, Credential, IdentityError, TokenSlot};

/// All that a configuration's files hold.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The tenants.
    pub directory: Directory,
    /// The certificate.
    pub tls: ServerConfig,
    /// When the certificate expires, in seconds since 1970-01-01 UTC.
    pub certificate_expires_at: Option<u64>,
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
        let certificate_expires_at = tls::certificate_expires_at(&config.listen);
        Ok(Self { config, directory, tls, certificate_expires_at })
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
    credential: Option<Arc<Credential>>,
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
    ) -> Result<Self, IdentityError> {
        let credential = Credential::new(&config.identity)?;
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
            let label = BackendLabel { backend: gone.name.clone() };
            self.metrics.backend_up.remove(&label);
            self.metrics.backend_role_missing.remove(&label);
        }
        let metrics = &self.metrics;
        self.slots.retain(|scope, _| {
            let is_used = config.backends.iter().any(|backend| backend.scope == *scope);
            if !is_used {
                metrics.forget_scope(&ScopeLabel { scope: scope.clone() });
            }
            is_used
        });
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
        self.metrics.backend_role_missing.remove(&label);
        let gauges = Gauges {
            up: self.metrics.backend_up.get_or_create_owned(&label),
            role_missing: self.metrics.backend_role_missing.get_or_create_owned(&label),
        };
        Arc::new(Backend::new(backend, &self.tls, token, self.clock, gauges))
    }

    fn slot(&mut self, scope: &str) -> Option<Arc<TokenSlot>> {
        let credential = self.credential.as_ref()?;
        if let Some(slot) = self.slots.get(scope) {
            return Some(Arc::clone(slot));
        }
        let slot = Arc::new(TokenSlot::new(scope, credential.source(), &self.metrics));
        let fresh = identity::keep_fresh(Arc::clone(&slot), Arc::clone(credential), self.clock);
        // It returns when no backend has the slot any more.
        drop(self.supervisor.task_until_done(format!("identity {scope}"), fresh));
        self.slots.insert(scope.to_owned(), Arc::clone(&slot));
        Some(slot)
    }
}
