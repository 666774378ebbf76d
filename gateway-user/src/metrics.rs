//! What Prometheus sees. Label values come from configuration or from enums here, never from a caller.
//!
//! A call touches no label map: the series of a tenant and deployment are found once, kept beside the tenant, and then
//! counted on directly. Only refusals look their labels up.

mod cost;
mod family;
mod labels;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::ledger::{Adjustment, Counted, Key, Kind};
use crate::names::{DeploymentName, ModelName, TenantName};
use crate::supervise::panics::Scope;
use cost::CostMetrics;
use family::TenantFamily;
use labels::{
    CostLabels, DeploymentLabels, HandshakeLabel, PanicLabel, RequestLabels, SettledLabels, ShedLabel,
    TenantLabel, TenantReason,
};

pub use cost::CostSeries;
pub use labels::{BackendLabel, HandshakeResult, ScopeLabel, ShedReason};

/// Every metric that the data path counts on.
#[derive(Debug)]
pub struct Metrics {
    cost: CostMetrics,
    requests: TenantFamily<RequestLabels, Counter>,
    throttled: TenantFamily<TenantReason, Counter>,
    streams_cut: TenantFamily<TenantReason, Counter>,
    settled: Family<SettledLabels, Counter>,
    shortfall: Family<DeploymentLabels, Counter>,
    inflight: Family<TenantLabel, Gauge>,
    /// Prompt estimate over upstream's own count, of the calls whose prompt was tokenised.
    pub estimate_ratio: Histogram,
    /// Prompts that were tokenised, or begun to be.
    pub prompts_counted: Counter,
    /// The gateway's own time before the request first went upstream; once a call.
    pub overhead: Histogram,
    /// From the start of sending the request upstream to the head of its response.
    pub upstream: Histogram,
    /// From the request's arrival to the first chunk of a stream.
    pub time_to_first_token: Histogram,
    /// From the arrival of a stream's chunk to its being handed to the caller's connection and flushed.
    pub chunk_delay: Histogram,
    /// Whether a backend is used for calls: 1 or 0.
    pub backend_up: Family<BackendLabel, Gauge>,
    /// Whether a backend refuses the gateway's identity for want of a role: 1 or 0.
    pub backend_role_missing: Family<BackendLabel, Gauge>,
    /// When the identity token in use ends, in seconds since 1970-01-01 UTC; 0 without one.
    pub identity_expiry: Family<ScopeLabel, Gauge>,
    /// When the certificate that callers are shown expires, in seconds since 1970-01-01 UTC; 0 where that is not known.
    pub certificate_expiry: Gauge,
    /// Whether the last attempt to get an identity token succeeded: 1 or 0.
    pub identity_up: Family<ScopeLabel, Gauge>,
    /// How often a configuration was put to use; 1 after start.
    pub config_generation: Gauge,
    /// Configurations that were refused on reload.
    pub config_rejected: Counter,
    /// Whether the files hold a configuration that was refused: 1 until another is put to use, else 0.
    pub config_refused: Gauge,
    handshakes: Family<HandshakeLabel, Counter>,
    connections_shed: Family<ShedLabel, Counter>,
    panics: Family<PanicLabel, Counter>,
    /// Connections open now.
    pub connections: Gauge,
    /// Bytes reserved for request bodies and held answers.
    pub buffered_bytes: Gauge,
    /// Responses whose usage could not be read, so that the hold or the gateway's own count stands.
    pub unreadable_usage: Counter,
    /// Responses whose usage was below the text that passed or beyond the model's bounds, so that the bound was booked.
    pub usage_out_of_bounds: Counter,
    /// Whether the store takes what is given to it: 1 or 0.
    pub store_up: Gauge,
    /// From the start of a checkpoint to the store's having it.
    pub store_checkpoint: Histogram,
    /// When the last checkpoint was started that outlives the process, by the process's own clock.
    pub store_kept_at_ms: AtomicU64,
    /// When the last checkpoint was started that is on the store's disk, by the process's own clock.
    pub store_on_disk_at_ms: AtomicU64,
}

/// The series of one tenant and deployment.
#[derive(Debug)]
pub struct CallSeries {
    /// Of answers in one piece.
    pub single: Arc<CostSeries>,
    /// Of streams.
    pub stream: Arc<CostSeries>,
    /// Calls answered with 200.
    pub answered: Counter,
    /// Calls settled by upstream's own usage.
    pub settled_upstream: Counter,
    /// Calls settled by what the gateway counted or held.
    pub settled_counted: Counter,
    /// Prompt tokens of upstream's own count beyond what the gateway had estimated.
    pub estimate_shortfall: Counter,
}

/// Whose count settled a call.
const UPSTREAM: &str = "upstream";
const COUNTED: &str = "counted";

/// Bounds for times that the gateway itself takes, in seconds.
const OWN_TIME: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];
/// Bounds for times that a model takes, in seconds: those of OpenTelemetry's `gen_ai.client.operation.duration`.
const MODEL_TIME: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Bounds for times that a disk or a server takes, in seconds.
const STORE_TIME: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bounds for estimate over actual.
const RATIO: [f64; 11] = [0.5, 0.8, 0.9, 0.95, 0.99, 1.0, 1.01, 1.05, 1.1, 1.25, 2.0];

impl Metrics {
    /// Makes every metric and registers it, in the order in which they are shown.
    #[must_use]
    pub fn register(to: &mut Registry) -> Self {
        Self {
            cost: CostMetrics::register(to),
            requests: TenantFamily::register(to, "gateway_requests", "Requests by how they were answered"),
            throttled: TenantFamily::register(to, "gateway_throttled", "Calls refused by a limit"),
            streams_cut: TenantFamily::register(
                to,
                "gateway_streams_cut",
                "Streams ended before upstream ended them",
            ),
            settled: registered(
                to,
                "gateway_settled",
                "Calls by whose count settled them: upstream's own, or the gateway's",
            ),
            shortfall: registered(
                to,
                "gateway_estimate_shortfall_tokens",
                "Prompt tokens by upstream's own count beyond the gateway's estimate",
            ),
            inflight: registered(to, "gateway_inflight", "Calls open now"),
            estimate_ratio: histogram(
                to,
                "gateway_estimate_ratio",
                "Estimated over actual prompt tokens",
                &RATIO,
            ),
            prompts_counted: registered(
                to,
                "gateway_prompts_counted",
                "Prompts that were tokenised, because a budget or a bill depended on it",
            ),
            overhead: histogram(
                to,
                "gateway_overhead_seconds",
                "From a request's arrival to its being ready to go upstream",
                &OWN_TIME,
            ),
            upstream: histogram(
                to,
                "gateway_upstream_seconds",
                "From a request's going upstream to the head of its response",
                &MODEL_TIME,
            ),
            time_to_first_token: histogram(
                to,
                "gateway_time_to_first_token_seconds",
                "From a request's arrival to the first chunk of its stream",
                &MODEL_TIME,
            ),
            chunk_delay: histogram(
                to,
                "gateway_chunk_delay_seconds",
                "From a chunk's arrival to its having been flushed towards the caller",
                &OWN_TIME,
            ),
            backend_up: registered(to, "gateway_backend_up", "Whether a backend is used for calls"),
            backend_role_missing: registered(
                to,
                "gateway_backend_role_missing",
                "Whether a backend refuses the gateway's identity for want of a role: 1 or 0",
            ),
            identity_expiry: registered(
                to,
                "gateway_identity_token_expiry_seconds",
                "When the identity token in use ends, in Unix time",
            ),
            certificate_expiry: registered(
                to,
                "gateway_certificate_expiry_seconds",
                "When the certificate that callers are shown expires, in Unix time",
            ),
            identity_up: registered(
                to,
                "gateway_identity_up",
                "Whether the last attempt to get an identity token succeeded: 1 or 0",
            ),
            config_generation: registered(
                to,
                "gateway_config_generation",
                "How often a configuration was put to use",
            ),
            config_rejected: registered(
                to,
                "gateway_config_rejected",
                "Configurations that were refused on reload",
            ),
            config_refused: registered(
                to,
                "gateway_config_refused",
                "Whether the files hold a configuration that was refused: 1 or 0",
            ),
            handshakes: registered(to, "gateway_tls_handshakes", "TLS handshakes by result"),
            connections_shed: registered(
                to,
                "gateway_connections_shed",
                "Connections that were not let in, or were closed, for their source's sake or for others'",
            ),
            panics: started(to, "gateway_panics", "Panics by what they ended"),
            connections: registered(to, "gateway_connections", "Connections open now"),
            buffered_bytes: registered(
                to,
                "gateway_buffered_bytes",
                "Memory reserved for request bodies and held answers",
            ),
            unreadable_usage: registered(
                to,
                "gateway_unreadable_usage",
                "Responses whose usage could not be read",
            ),
            usage_out_of_bounds: registered(
                to,
                "gateway_usage_out_of_bounds",
                "Responses whose usage was below the text that passed or beyond the model's bounds",
            ),
            store_up: registered(
                to,
                "gateway_store_up",
                "Whether the store that budgets are kept in can be used: 1 or 0",
            ),
            store_checkpoint: histogram(
                to,
                "gateway_store_checkpoint_seconds",
                "From the start of a checkpoint to the store's having it",
                &STORE_TIME,
            ),
            store_kept_at_ms: AtomicU64::new(0),
            store_on_disk_at_ms: AtomicU64::new(0),
        }
    }

    /// The series of a tenant's calls to a deployment.
    #[must_use]
    pub fn calls(&self, tenant: &TenantName, deployment: &DeploymentName, model: &ModelName) -> CallSeries {
        let of_kind = |kind| {
            let (tenant, deployment, model) = (tenant.clone(), deployment.clone(), model.clone());
            self.cost.series(&CostLabels { tenant, deployment, model, kind })
        };
        let settled =
            |source| self.settled.get_or_create_owned(&SettledLabels { tenant: tenant.clone(), source });
        CallSeries {
            single: of_kind(Kind::Single),
            stream: of_kind(Kind::Stream),
            answered: self.requests.owned(&RequestLabels {
                tenant: Some(tenant.clone()),
                deployment: Some(deployment.clone()),
                status: 200,
                reason: "",
            }),
            settled_upstream: settled(UPSTREAM),
            settled_counted: settled(COUNTED),
            estimate_shortfall: self.shortfall.get_or_create_owned(&DeploymentLabels {
                tenant: tenant.clone(),
                deployment: deployment.clone(),
            }),
        }
    }

    /// Reads what the ledger keeps of every series.
    pub(crate) fn read_cost<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = Counted<'_>>) -> T) -> T {
        self.cost.read(read)
    }

    /// Counts what an operator gave back or charged.
    pub(crate) fn adjusted(&self, adjustment: &Adjustment) {
        self.cost.adjusted(adjustment);
    }

    /// The gauge of a tenant's open calls.
    #[must_use]
    pub fn inflight(&self, tenant: &TenantName) -> Gauge<i64, AtomicI64> {
        self.inflight.get_or_create_owned(&TenantLabel { tenant: tenant.clone() })
    }

    /// Drops the series of a tenant that is removed and makes no calls any more.
    pub(crate) fn forget(&self, tenant: &TenantName) {
        for Key { tenant, deployment, .. } in self.cost.forget(tenant) {
            if let Some(deployment) = deployment {
                self.shortfall.remove(&DeploymentLabels { tenant, deployment });
            }
        }
        for source in [UPSTREAM, COUNTED] {
            self.settled.remove(&SettledLabels { tenant: tenant.clone(), source });
        }
        self.inflight.remove(&TenantLabel { tenant: tenant.clone() });
        self.requests.forget(tenant);
        self.throttled.forget(tenant);
        self.streams_cut.forget(tenant);
    }

    /// Counts a request that was not answered with 200 by upstream.
    pub fn request(
        &self,
        tenant: Option<&TenantName>,
        deployment: Option<&DeploymentName>,
        status: u16,
        reason: &'static str,
    ) {
        let (tenant, deployment) = (tenant.cloned(), deployment.cloned());
        self.requests.get(&RequestLabels { tenant, deployment, status, reason }).inc();
    }

    /// Counts a call refused by one of its tenant's limits.
    pub fn throttled(&self, tenant: &TenantName, reason: &'static str) {
        self.throttled.get(&TenantReason { tenant: tenant.clone(), reason }).inc();
    }

    /// Counts a stream that the gateway ended.
    pub fn stream_cut(&self, tenant: &TenantName, reason: &'static str) {
        self.streams_cut.get(&TenantReason { tenant: tenant.clone(), reason }).inc();
    }

    /// Ends the series of a scope that nobody uses any more.
    pub(crate) fn forget_scope(&self, scope: &ScopeLabel) {
        self.identity_expiry.remove(scope);
        self.identity_up.remove(scope);
    }

    /// Counts a panic.
    pub(crate) fn panicked(&self, scope: Scope) {
        self.panics.get_or_create(&PanicLabel { r#where: scope }).inc();
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&HandshakeLabel { result }).inc();
    }

    /// Counts a connection that was not let in, or was closed before its time.
    pub fn connection_shed(&self, reason: ShedReason) {
        self.connections_shed.get_or_create(&ShedLabel { reason }).inc();
    }
}

/// A registry with every metric of the data path.
#[must_use]
pub fn registry() -> (Registry, Arc<Metrics>) {
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    (registry, metrics)
}

/// A metric that starts at nothing, registered.
pub(crate) fn registered<M: Metric + Clone + Default>(
    to: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> M {
    let metric = M::default();
    to.register(name, help, metric.clone());
    metric
}

/// The panics by scope, each starting at zero.
fn started(to: &mut Registry, name: &'static str, help: &'static str) -> Family<PanicLabel, Counter> {
    let panics: Family<PanicLabel, Counter> = registered(to, name, help);
    for scope in Scope::ALL {
        drop(panics.get_or_create_owned(&PanicLabel { r#where: scope }));
    }
    panics
}

/// A histogram with buckets up to these bounds, registered.
pub(crate) fn histogram(
    to: &mut Registry,
    name: &'static str,
    help: &'static str,
    bounds: &[f64],
) -> Histogram {
    let metric = Histogram::new(bounds.iter().copied());
    to.register(name, help, metric.clone());
    metric
}
