//! The configuration: one TOML file, read and checked once, after which the program holds only values that cannot be
//! wrong.
//!
//! Every part of the file has a module here that holds its type, its defaults and its reading. [`Config::load`] reports
//! all that is wrong with a file at once, each problem with its line and key.

mod backend;
mod causes;
mod deployment;
pub(crate) mod document;
mod endpoint;
mod error;
mod files;
mod forward;
mod kernel;
pub(crate) mod key;
mod listen;
mod placeholder;
mod store;
mod tier;
pub(crate) mod value;
mod warning;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use document::{Reported, Section};

use crate::kernel::KernelConfig;
use crate::names::{BackendName, DeploymentName, ModelName, TierName};
use crate::tenant::TenantsFile;
use crate::units::Prices;

pub(crate) use error::nearest;

pub use backend::{Backend, Identity, IdentitySource};
pub use deployment::Deployment;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ConfigError, ConfigErrors, Position, Problem};
pub use forward::Forward;
pub use listen::{Admin, CorsOrigins, ErrorFormat, Listen, Log, LogFormat};
pub use store::{RedisUrl, Store, StoreLocation, WhenDown};
pub use tier::{AllowedDeployments, Tier};
pub use warning::Warning;

/// The whole configuration, an immutable snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where callers connect, and what one connection may take.
    pub listen: Listen,
    /// Where operators and probes connect.
    pub admin: Admin,
    /// How the gateway itself signs in to Azure.
    pub identity: Identity,
    /// Where calls can be forwarded to, in the file's order; at least one.
    pub backends: Vec<Backend>,
    /// What callers may name, by the name they use; at least one.
    pub deployments: BTreeMap<DeploymentName, Deployment>,
    /// What tokens cost, by model. A model without an entry costs nothing in the books.
    pub prices: BTreeMap<ModelName, Prices>,
    /// The sets of limits that tenants can be given; at least one.
    pub tiers: BTreeMap<TierName, Tier>,
    /// Where quotas and the ledger are kept.
    pub store: Store,
    /// What of a request goes upstream besides the usual.
    pub forward: Forward,
    /// How refusals are written.
    pub errors: ErrorFormat,
    /// What is shed in the kernel.
    pub kernel: KernelConfig,
    /// Where the tenants are listed.
    pub tenants: TenantsFile,
    /// What is logged, and how.
    pub log: Log,
    /// The keys whose value is a placeholder, such as `REPLACE-ME`.
    pub placeholders: Vec<String>,
}

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start from its own folder.
    ///
    /// The files that it names are not opened: that is for [`Config::check`] and for those who use them.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&text_of(path)?, path)
    }

    /// Reads and checks the file at `path`, the certificates and the key that it names included.
    ///
    /// The tenants file is left to [`Directory::load`](crate::tenant::Directory::load).
    ///
    /// # Errors
    /// All that is wrong with it or with those files.
    pub fn check(path: &Path) -> Result<Self, ConfigErrors> {
        document::read(path, &text_of(path)?, |root| {
            let config = Self::read(root, folder_of(path))?;
            files::check(&config.listen, root);
            Ok(config)
        })
    }

    /// Checks the text of a file that is, or would be, at `path`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        document::read(path, text, |root| Self::read(root, folder_of(path)))
    }

    /// Reads every section before it gives up on any, so that all problems are found.
    fn read(root: &mut Section<'_>, folder: &Path) -> Result<Self, Reported> {
        let listen = root.section("listen", |section| Listen::read(section, folder)).flatten();
        let admin = root.section("admin", Admin::read);
        let identity = root.section("identity", Identity::read);
        let backends = backend::read_all(root);
        let prices = deployment::read_prices(root);
        let deployments = deployment::read_all(root, &backends.names, &prices);
        let tiers = tier::read_all(root, &deployments);
        let store = root.section("store", |section| Store::read(section, folder));
        let forward = root.section("forward", Forward::read);
        let errors = root.section("errors", ErrorFormat::read);
        let kernel = root.section("kernel", kernel::read);
        let tenants = root.section("tenants", |section| {
            let file = section.or("file", PathBuf::from(DEFAULT_TENANTS_FILE), value::path);
            TenantsFile::new(folder.join(file))
        });
        let log = root.section("log", Log::read);

        let (listen, kernel) = (listen?, kernel?);
        let config = Self {
            kernel: KernelConfig { balancers: listen.proxy_protocol_from.clone(), ..kernel },
            listen,
            admin: admin?,
            identity: identity?,
            backends: backends.all,
            deployments: deployments.all,
            prices,
            tiers,
            store: store?,
            forward: forward?,
            errors: errors?,
            tenants: tenants?,
            log: log?,
            placeholders: root.placeholders(),
        };
        config.check_together(root)?;
        Ok(config)
    }

    /// What no section can know alone.
    fn check_together(&self, root: &Section<'_>) -> Result<(), Reported> {
        if self.admin.address == self.listen.address && self.listen.address.port() != 0 {
            root.report_at(&["admin", "address"], Problem::SameAddress(self.listen.address));
        }
        if self.identity.source == IdentitySource::None
            && let Some(elsewhere) = self.backends.iter().find(|backend| !backend.endpoint.is_loopback())
        {
            return Err(
                root.report_at(&["identity", "source"], Problem::IdentityNeeded(elsewhere.name.clone()))
            );
        }
        Ok(())
    }

    /// The backend of that name.
    #[must_use]
    pub fn backend(&self, name: &BackendName) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.name == *name)
    }
}

fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => Problem::NoConfig,
            _ => Problem::Read(error),
        };
        ConfigErrors::file(path, problem)
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

const DEFAULT_TENANTS_FILE: &str = "tenants.toml";

#[cfg(test)]
mod tests;
