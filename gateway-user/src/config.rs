//! The configuration: one TOML file, read and checked once, after which the program holds only values that cannot be
//! wrong.
//!
//! Every part of the file has a module here that holds its type, its defaults and its reading. [`Config::load`] reports
//! all that is wrong with a file at once, each problem with its line and key.

mod backend;
mod deployment;
mod kernel;
mod listen;
mod store;
mod tier;

use std::collections::BTreeMap;

use crate::names::{DeploymentName, ModelName, TierName};
use crate::tenant::TenantsFile;
use crate::units::Prices;

pub use backend::{Backend, Endpoint, EndpointError, Identity, IdentitySource};
pub use deployment::Deployment;
pub use kernel::{Attach, Interface, Kernel, KernelMode};
pub use listen::{Admin, ErrorFormat, Listen, Log, LogFormat};
pub use store::{RedisUrl, Store, StoreLocation, WhenDown};
pub use tier::{AllowedDeployments, Ceiling, Period, SpendQuota, Tier, TokenQuota};

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
    /// How refusals are written.
    pub errors: ErrorFormat,
    /// What is shed in the kernel.
    pub kernel: Kernel,
    /// Where the tenants are listed.
    pub tenants: TenantsFile,
    /// What is logged, and how.
    pub log: Log,
}
