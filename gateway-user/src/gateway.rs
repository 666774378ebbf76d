//! What all workers share: the running configuration as an immutable snapshot, and what outlives it.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::buffers::{Buffers, Share};
use crate::compute::Compute;
use crate::config::{Config, Tier};
use crate::fleet::Fleet;
use crate::kernel::Shedder;
use crate::limits::{Account, Clock, Limits, Now, Refused};
use crate::metrics::{CallSeries, Metrics};
use crate::model::Model;
use crate::names::{DeploymentName, ModelName, TenantName};
use crate::secret::KeyHash;
use crate::store::{Opened, Store};
use crate::tenant::{Directory, KeySlot, Presented, TenantState};
use crate::units::Prices;
use crate::upstream::backend::Backend;
use crate::upstream::choice::Choice;

/// Bodies read at once of a tenant whose calls at once are not limited.
const MOST_BODIES: u32 = 1000;
/// Tenants times deployments, up to which every series is there from the start.
const MOST_SERIES_AT_START: usize = 500;

/// What all workers share.
#[derive(Debug)]
pub struct Gateway {
    /// The process's clocks.
    pub clock: Clock,
    /// What Prometheus sees.
    pub metrics: Arc<Metrics>,
    /// Where budgets and the ledger survive, where this node has them to itself.
    pub store: Option<Arc<Store>>,
    /// Whom budgets are shared with, where they are.
    pub fleet: Option<Arc<Fleet>>,
    /// Who is shed.
    pub shedder: Arc<Shedder>,
    /// The memory of request bodies and held answers.
    pub buffers: Arc<Buffers>,
    /// What takes too long for a worker.
    pub(crate) compute: Compute,
    snapshot: ArcSwap<Snapshot>,
    registry: Mutex<Registry>,
    leaving: AtomicBool,
    shutting_down: AtomicBool,
    refused: Mutex<Option<RefusedConfig>>,
}

/// A changed configuration that was not put to use, while its files stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedConfig {
    /// When it was read, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// What is wrong with it, a line for each problem.
    pub problem: String,
}

/// Where budgets are kept beyond this process's memory.
#[derive(Debug)]
pub enum Keeping {
    /// In a directory that this node has to itself.
    Alone(Opened),
    /// In a server, with all nodes of a fleet.
    Shared(Arc<Fleet>),
}

/// What is kept of tenants from one configuration to the next.
#[derive(Debug)]
struct Registry {
    fleet: Option<Arc<Fleet>>,
    /// Those of a tenant that is removed are kept until its last period has ended: it may come back.
    accounts: HashMap<TenantName, Arc<Account>>,
}

/// One configuration with its tenants, immutable; calls keep the one that they started with.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration.
    pub config: Config,
    directory: Directory,
    tenants: Vec<Arc<Tenant>>,
    deployments: Vec<Arc<Deployment>>,
    by_name: HashMap<DeploymentName, usize>,
    /// All backends, in the order in which they are tried.
    pub backends: Vec<Arc<Backend>>,
}

/// A tenant as the data path sees it.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// What it has used.
    pub account: Arc<Account>,
    /// Its open calls.
    pub inflight: Gauge<i64, AtomicI64>,
    /// What its request bodies and held answers take of the memory for them.
    pub buffered: Arc<Share>,
    /// Of its keys, by slot, whether they have been revoked since.
    revoked: [Arc<AtomicBool>; 2],
    tier: Arc<Tier>,
    /// Bodies of its requests that are being read.
    reading: AtomicU32,
    /// Its series by deployment, made at its first call to each; the places for them at its first call.
    series: OnceLock<Box<[OnceLock<Arc<CallSeries>>]>>,
}

/// A deployment as the data path sees it.
#[derive(Debug)]
pub struct Deployment {
    /// As callers name it.
    pub name: DeploymentName,
    /// The model behind it.
    pub model: ModelName,
    /// What is known of the model, as far as the configuration does not say otherwise.
    pub facts: Model,
    /// What its tokens cost.
    pub prices: Prices,
    /// The most tokens that upstream writes of one answer in a second.
    pub max_tokens_per_second: NonZeroU32,
    /// Where it is, in the order in which they are tried.
    pub backends: Choice,
    place: usize,
    /// How many places there are.
    places: usize,
}

/// A body of a tenant's request that is not a call yet.
#[derive(Debug)]
pub struct Reading(Arc<Tenant>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a presented key opens.
#[derive(Debug)]
pub enum Access<'a> {
    /// A tenant that may call, and which of its keys it was.
    Granted(&'a Arc<Tenant>, KeySlot),
    /// A tenant that may not.
    Suspended(&'a TenantName),
    /// Nothing.
    Unknown,
}

impl Gateway {
    /// A gateway on its first configuration.
    #[must_use]
    pub fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        keeping: Keeping,
        shedder: Arc<Shedder>,
        config: Config,
        directory: Directory,
        backends: Vec<Arc<Backend>>,
    ) -> Arc<Self> {
        let (store, fleet, accounts) = match keeping {
            Keeping::Alone(Opened { store, accounts }) => (Some(store), None, accounts),
            Keeping::Shared(fleet) => (None, Some(fleet), HashMap::new()),
        };
        let mut registry = Registry { fleet: fleet.clone(), accounts };
        let buffers = Buffers::new(config.listen.max_buffered_bytes, metrics.buffered_bytes.clone());
        let snapshot = Snapshot::new(config, directory, backends, &metrics, &mut registry, None);
        registry.note_removed(&snapshot, None, clock.now());
        metrics.config_generation.set(1);
        Arc::new(Self {
            clock,
            metrics,
            store,
            fleet,
            shedder,
            buffers,
            compute: Compute::new(),
            snapshot: ArcSwap::from_pointee(snapshot),
            registry: Mutex::new(registry),
            leaving: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            refused: Mutex::default(),
        })
    }

    /// Whether the process was told to stop. Connections are accepted for `listen.lame_duck` more, and calls are answered
    /// for `listen.drain_timeout` after that, but load balancers should choose another node.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// From now on [`Gateway::is_leaving`].
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether `listen.drain_timeout` is over: a response that is open still has
    /// [`LAST_WORDS`](crate::serve::LAST_WORDS) to come to an end of its own before it is cut.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// From now on [`Gateway::is_shutting_down`].
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// The configuration in use.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration to use. Tenants that it no longer lets call lose their open streams.
    pub fn replace(&self, config: Config, directory: Directory, backends: Vec<Arc<Backend>>) {
        let mut registry = self.registry.lock();
        let last = self.snapshot();
        self.buffers.set_limit(config.listen.max_buffered_bytes);
        let next = Snapshot::new(config, directory, backends, &self.metrics, &mut registry, Some(&last));
        registry.note_removed(&next, Some(&last), self.clock.now());
        let live: HashSet<_> = next.live_keys().collect();
        for (key, revoked) in last.keys() {
            revoked.store(!live.contains(&key), Ordering::Relaxed);
        }
        self.snapshot.store(Arc::new(next));
        self.metrics.config_generation.inc();
        *self.refused.lock() = None;
        self.metrics.config_refused.set(0);
    }

    /// Takes note that a changed configuration is wrong; the one in use stays.
    pub fn refuse(&self, problem: &str) {
        let since = self.clock.now().utc_seconds;
        *self.refused.lock() = Some(RefusedConfig { since, problem: problem.to_owned() });
        self.metrics.config_rejected.inc();
        self.metrics.config_refused.set(1);
    }

    /// Takes note of when the certificate that callers are shown expires, in seconds since 1970-01-01 UTC.
    pub fn serves_certificate_until(&self, expires_at: Option<u64>) {
        let expires_at = expires_at.and_then(|expires_at| i64::try_from(expires_at).ok());
        self.metrics.certificate_expiry.set(expires_at.unwrap_or(0));
    }

    /// When the certificate that callers are shown expires, in seconds since 1970-01-01 UTC, where that is known.
    #[must_use]
    pub fn certificate_expires_at(&self) -> Option<u64> {
        u64::try_from(self.metrics.certificate_expiry.get()).ok().filter(|expires_at| *expires_at > 0)
    }

    /// The configuration that was refused last, where none was put to use since.
    #[must_use]
    pub fn refused(&self) -> Option<RefusedConfig> {
        self.refused.lock().clone()
    }

    /// The removed tenants of which nothing has to be kept any more, and who make no calls: what they have used was counted
    /// before this was asked.
    pub(crate) fn over(&self, now: Now) -> Vec<TenantName> {
        let registry = self.registry.lock();
        let over = registry.accounts.iter().filter(|(_, account)| is_over(account, now));
        over.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Drops the accounts and series of tenants that were [`Self::over`] before and are still; gives those that it dropped.
    pub(crate) fn forget(&self, over: Vec<TenantName>, now: Now) -> Vec<TenantName> {
        let mut registry = self.registry.lock();
        over.into_iter()
            .filter(|tenant| {
                let gone = registry.accounts.get(tenant).is_some_and(|account| is_over(account, now));
                if gone {
                    registry.accounts.remove(tenant);
                    self.metrics.forget(tenant);
                }
                gone
            })
            .collect()
    }

    /// Visits every account, also those of tenants that are removed. No configuration is put to use meanwhile.
    pub(crate) fn each_account(&self, mut visit: impl FnMut(&TenantName, &Arc<Account>)) {
        let registry = self.registry.lock();
        registry.accounts.iter().for_each(|(tenant, account)| visit(tenant, account));
    }

    /// The account of a tenant, also of one that is removed.
    pub(crate) fn account(&self, tenant: &TenantName) -> Option<Arc<Account>> {
        self.registry.lock().accounts.get(tenant).map(Arc::clone)
    }

    /// Whether a call could be made at this moment: at least one backend has a token, or needs none.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        let now = self.clock.now().utc_seconds;
        self.snapshot.load().backends.iter().any(|backend| backend.is_authorised(now))
    }
}

/// Whether nothing of an account has to be kept, and no call has it.
fn is_over(account: &Arc<Account>, now: Now) -> bool {
    Arc::strong_count(account) == 1 && account.is_over(now)
}

impl Registry {
    /// Notes of every account whether its tenant is there, and until when it is kept otherwise.
    fn note_removed(&self, next: &Snapshot, last: Option<&Snapshot>, now: Now) {
        let of = |snapshot: &Snapshot| -> HashMap<TenantName, Arc<Tenant>> {
            let tenants = snapshot.tenants.iter();
            tenants.map(|tenant| (tenant.name.clone(), Arc::clone(tenant))).collect()
        };
        let (next, last) = (of(next), last.map(of).unwrap_or_default());
        for (name, account) in &self.accounts {
            if next.contains_key(name) {
                account.returned();
            } else {
                account.removed(last.get(name).map(|tenant| tenant.limits()), now);
            }
        }
    }

    fn account(&mut self, tenant: &TenantName) -> Arc<Account> {
        let make = || self.fleet.as_ref().map_or_else(Arc::default, |fleet| fleet.account());
        Arc::clone(self.accounts.entry(tenant.clone()).or_insert_with(make))
    }
}

impl Snapshot {
    fn new(
        config: Config,
        directory: Directory,
        mut backends: Vec<Arc<Backend>>,
        metrics: &Metrics,
        registry: &mut Registry,
        last: Option<&Self>,
    ) -> Self {
        backends.sort_by_key(|backend| backend.priority);
        let deployments: Vec<_> = config
            .deployments
            .iter()
            .enumerate()
            .map(|(place, (name, deployment))| {
                Arc::new(Deployment {
                    name: name.clone(),
                    model: deployment.model.clone(),
                    facts: deployment.facts,
                    prices: deployment.prices.unwrap_or_default(),
                    max_tokens_per_second: deployment.max_tokens_per_second,
                    backends: Choice::among(
                        backends
                            .iter()
                            .filter(|backend| deployment.backends.contains(&backend.name))
                            .cloned(),
                    ),
                    place,
                    places: config.deployments.len(),
                })
            })
            .collect();
        let by_name =
            deployments.iter().map(|deployment| (deployment.name.clone(), deployment.place)).collect();
        let mut buffered: HashMap<_, _> = last
            .into_iter()
            .flat_map(|last| &last.tenants)
            .map(|tenant| (tenant.name.clone(), Arc::clone(&tenant.buffered)))
            .collect();
        let tenants = directory
            .iter()
            .map(|(_, member)| {
                let name = member.tenant.name.clone();
                // Calls that are under way learn of what becomes of their key.
                let revoked =
                    |slot| last.and_then(|last| last.flag(&member.tenant.key(slot))).unwrap_or_default();
                Arc::new(Tenant {
                    account: registry.account(&name),
                    inflight: metrics.inflight(&name),
                    buffered: buffered.remove(&name).unwrap_or_default(),
                    revoked: [KeySlot::Primary, KeySlot::Secondary].map(revoked),
                    tier: Arc::clone(&member.tier),
                    reading: AtomicU32::new(0),
                    series: OnceLock::new(),
                    name,
                })
            })
            .collect();
        let snapshot = Self { config, directory, tenants, deployments, by_name, backends };
        snapshot.start_series(metrics);
        snapshot
    }

    /// Starts the counters at zero, so that Prometheus sees the first call as an increase: unless that would fill the
    /// page with series that may never count.
    fn start_series(&self, metrics: &Metrics) {
        if self.tenants.len().saturating_mul(self.deployments.len()) > MOST_SERIES_AT_START {
            return;
        }
        for tenant in &self.tenants {
            for deployment in self.allowed(tenant) {
                drop(tenant.series(deployment, metrics));
            }
        }
    }

    /// Whose key a caller presents.
    #[must_use]
    pub fn access(&self, key: &[u8]) -> Access<'_> {
        match self.directory.find(key) {
            Presented::Active(index, member, slot) => match self.tenants.get(index.get()) {
                Some(tenant) => Access::Granted(tenant, slot),
                None => Access::Suspended(&member.tenant.name),
            },
            Presented::Suspended(member) => Access::Suspended(&member.tenant.name),
            Presented::Unknown => Access::Unknown,
        }
    }

    /// Every key, with whether it has been revoked since.
    fn keys(&self) -> impl Iterator<Item = (KeyHash, &AtomicBool)> {
        self.directory.iter().zip(&self.tenants).flat_map(|((_, member), tenant)| {
            [KeySlot::Primary, KeySlot::Secondary]
                .map(|slot| (member.tenant.key(slot), &*tenant.revoked[slot as usize]))
        })
    }

    /// Where calls look whether a key has been revoked; nothing where it has.
    fn flag(&self, key: &KeyHash) -> Option<Arc<AtomicBool>> {
        let (index, slot) = self.directory.by_hash(key)?;
        let flag = &self.tenants.get(index.get())?.revoked[slot as usize];
        (!flag.load(Ordering::Relaxed)).then(|| Arc::clone(flag))
    }

    /// The hashes of the keys that open something.
    fn live_keys(&self) -> impl Iterator<Item = KeyHash> {
        self.directory
            .iter()
            .map(|(_, member)| &member.tenant)
            .filter(|tenant| tenant.state == TenantState::Active)
            .flat_map(|tenant| [tenant.primary, tenant.secondary])
    }

    /// The deployment of that name.
    #[must_use]
    pub fn deployment(&self, name: &str) -> Option<&Arc<Deployment>> {
        self.by_name.get(name).and_then(|place| self.deployments.get(*place))
    }

    /// Every tenant.
    #[must_use]
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }

    /// The deployments that a tenant may call.
    pub fn allowed<'a>(&'a self, tenant: &'a Tenant) -> impl Iterator<Item = &'a Arc<Deployment>> {
        self.deployments.iter().filter(|deployment| tenant.allows(deployment))
    }
}

impl Tenant {
    /// What it may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.tier.limits
    }

    /// Whether its tier includes a deployment.
    #[must_use]
    pub fn allows(&self, deployment: &Deployment) -> bool {
        self.tier.deployments.allows(deployment.name.as_str())
    }

    /// Whether its calls may name what Azure keeps for the whole account.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.tier.stored_state
    }

    /// Whether one of its keys has been revoked since the call with it started.
    #[must_use]
    pub fn is_revoked(&self, slot: KeySlot) -> bool {
        self.revoked[slot as usize].load(Ordering::Relaxed)
    }

    /// A place among the bodies of its requests that are being read and let in: as many as it may have calls open. So a tenant cannot
    /// fill the memory with requests that are not calls yet.
    ///
    /// # Errors
    /// When that many are being read.
    pub fn start_reading(self: &Arc<Self>) -> Result<Reading, Refused> {
        let limit = self.tier.limits.concurrent_calls.map_or(MOST_BODIES, NonZeroU32::get);
        let reading = Reading(Arc::clone(self));
        if self.reading.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(Refused::Concurrency { limit, wait: Duration::from_secs(1) });
        }
        Ok(reading)
    }

    /// Its series for a deployment of the same snapshot.
    #[must_use]
    pub fn series(&self, deployment: &Deployment, metrics: &Metrics) -> Arc<CallSeries> {
        let make = || Arc::new(metrics.calls(&self.name, &deployment.name, &deployment.model));
        let places = self.series.get_or_init(|| (0..deployment.places).map(|_| OnceLock::new()).collect());
        places.get(deployment.place).map_or_else(make, |series| Arc::clone(series.get_or_init(make)))
    }
}

#[cfg(test)]
mod tests;
