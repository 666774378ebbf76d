//! What Prometheus sees. Label values come from configuration or from enums here, never from a caller.
//!
//! A call touches no label map: the series of a tenant and deployment are found once, kept beside the tenant, and then
//! counted on directly. Only refusals look their labels up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::ledger::{Key, Kind, Sums};
use crate::meter::Usage;
use crate::names::{BackendName, DeploymentName, ModelName, TenantName};
use crate::units::{NanoDollars, Tokens};

/// Every metric that the data path counts on.
#[derive(Debug)]
pub struct Metrics {
    consumed: Family<CostLabels, Counter>,
    prompt: Family<CostLabels, Counter>,
    cached_prompt: Family<CostLabels, Counter>,
    completion: Family<CostLabels, Counter>,
    reasoning: Family<CostLabels, Counter>,
    cost: Family<CostLabels, Counter<f64, AtomicU64>>,
    cost_series: Mutex<CostIndex>,
    requests: Family<RequestLabels, Counter>,
    throttled: Family<TenantReason, Counter>,
    streams_cut: Family<TenantReason, Counter>,
    settled: Family<SettledLabels, Counter>,
    inflight: Family<TenantLabel, Gauge>,
    /// Prompt estimate over upstream's own count, of the calls whose prompt was tokenised.
    pub estimate_ratio: Histogram,
    /// The gateway's own time before the request went upstream.
    pub overhead: Histogram,
    /// From the request's last byte sent upstream to the response's first.
    pub upstream: Histogram,
    /// From the request's arrival to the first chunk of a stream.
    pub time_to_first_token: Histogram,
    /// From the arrival of a stream's chunk to its being handed to the caller's connection and flushed.
    pub chunk_delay: Histogram,
    /// Whether a backend is used for calls: 1 or 0.
    pub backend_up: Family<BackendLabel, Gauge>,
    /// When the identity token in use ends, in seconds since 1970-01-01 UTC; 0 without one.
    pub identity_expiry: Gauge,
    /// How often a configuration was put to use; 1 after start.
    pub config_generation: Gauge,
    /// Configurations that were refused on reload.
    pub config_rejected: Counter,
    handshakes: Family<HandshakeLabel, Counter>,
    /// Connections open now.
    pub connections: Gauge,
    /// Responses whose usage could not be read, so that the hold or the gateway's own count stands.
    pub unreadable_usage: Counter,
    /// Whether the store takes what is given to it: 1 or 0.
    pub store_up: Gauge,
}

/// Every [`CostSeries`], oldest first. They outlive configurations, as the counters behind them do.
#[derive(Debug, Default)]
struct CostIndex {
    all: Vec<(Key, Arc<CostSeries>)>,
    places: HashMap<Key, usize>,
}

/// The series of one tenant, deployment and kind of answer: what Prometheus and the ledger read.
#[derive(Debug)]
pub struct CostSeries {
    calls: AtomicU64,
    /// What `cost` has as a float.
    nano_dollars: AtomicU64,
    consumed: Counter,
    prompt: Counter,
    cached_prompt: Counter,
    completion: Counter,
    reasoning: Counter,
    cost: Counter<f64, AtomicU64>,
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
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// A connection.
    Ok,
    /// The peer's bytes or certificate were refused, or it refused ours.
    Failed,
    /// Not done within the handshake timeout.
    Timeout,
}

impl EncodeLabelValue for HandshakeResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

macro_rules! label_values {
    ($($name:ty),+) => {$(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    )+};
}

label_values!(TenantName, DeploymentName, ModelName, BackendName, Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostLabels {
    tenant: TenantName,
    deployment: DeploymentName,
    model: ModelName,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    tenant: Option<TenantName>,
    deployment: Option<DeploymentName>,
    status: u16,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantReason {
    tenant: TenantName,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettledLabels {
    tenant: TenantName,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: TenantName,
}

/// The label of a backend's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabel {
    /// Its name.
    pub backend: BackendName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabel {
    result: HandshakeResult,
}

/// Bounds for times that the gateway itself takes, in seconds.
const OWN_TIME: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];
/// Bounds for times that a model takes, in seconds: those of OpenTelemetry's `gen_ai.client.operation.duration`.
const MODEL_TIME: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Bounds for estimate over actual.
const RATIO: [f64; 11] = [0.5, 0.8, 0.9, 0.95, 0.99, 1.0, 1.01, 1.05, 1.1, 1.25, 2.0];

impl Metrics {
    /// Makes every metric and registers it.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            consumed: Family::default(),
            prompt: Family::default(),
            cached_prompt: Family::default(),
            completion: Family::default(),
            reasoning: Family::default(),
            cost: Family::default(),
            cost_series: Mutex::default(),
            requests: Family::default(),
            throttled: Family::default(),
            streams_cut: Family::default(),
            settled: Family::default(),
            inflight: Family::default(),
            estimate_ratio: Histogram::new(RATIO),
            overhead: Histogram::new(OWN_TIME),
            upstream: Histogram::new(MODEL_TIME),
            time_to_first_token: Histogram::new(MODEL_TIME),
            chunk_delay: Histogram::new(OWN_TIME),
            backend_up: Family::default(),
            identity_expiry: Gauge::default(),
            config_generation: Gauge::default(),
            config_rejected: Counter::default(),
            handshakes: Family::default(),
            connections: Gauge::default(),
            unreadable_usage: Counter::default(),
            store_up: Gauge::default(),
        };
        let m = &metrics;
        registry.register("aoai_tokens_consumed", "Tokens of prompts and answers", m.consumed.clone());
        registry.register("aoai_prompt_tokens", "Tokens of prompts", m.prompt.clone());
        registry.register(
            "aoai_cached_prompt_tokens",
            "Prompt tokens that upstream read from its cache",
            m.cached_prompt.clone(),
        );
        registry.register(
            "aoai_completion_tokens",
            "Tokens of answers, reasoning included",
            m.completion.clone(),
        );
        registry.register("aoai_reasoning_tokens", "Tokens spent on reasoning", m.reasoning.clone());
        registry.register(
            "aoai_cost_dollars",
            "What the tokens cost, by the configured prices",
            m.cost.clone(),
        );
        registry.register("gateway_requests", "Requests by how they were answered", m.requests.clone());
        registry.register("gateway_throttled", "Calls refused by a limit", m.throttled.clone());
        registry.register(
            "gateway_streams_cut",
            "Streams ended before upstream ended them",
            m.streams_cut.clone(),
        );
        registry.register(
            "gateway_settled",
            "Calls by whose count settled them: upstream's own, or the gateway's",
            m.settled.clone(),
        );
        registry.register("gateway_inflight", "Calls open now", m.inflight.clone());
        registry.register(
            "gateway_estimate_ratio",
            "Estimated over actual prompt tokens",
            m.estimate_ratio.clone(),
        );
        registry.register(
            "gateway_overhead_seconds",
            "From a request's arrival to its being ready to go upstream",
            m.overhead.clone(),
        );
        registry.register(
            "gateway_upstream_seconds",
            "From a request's going upstream to the head of its response",
            m.upstream.clone(),
        );
        registry.register(
            "gateway_time_to_first_token_seconds",
            "From a request's arrival to the first chunk of its stream",
            m.time_to_first_token.clone(),
        );
        registry.register(
            "gateway_chunk_delay_seconds",
            "From a chunk's arrival to its having been flushed towards the caller",
            m.chunk_delay.clone(),
        );
        registry.register("gateway_backend_up", "Whether a backend is used for calls", m.backend_up.clone());
        registry.register(
            "gateway_identity_token_expiry_seconds",
            "When the identity token in use ends, in Unix time",
            m.identity_expiry.clone(),
        );
        registry.register(
            "gateway_config_generation",
            "How often a configuration was put to use",
            m.config_generation.clone(),
        );
        registry.register(
            "gateway_config_rejected",
            "Configurations that were refused on reload",
            m.config_rejected.clone(),
        );
        registry.register("gateway_tls_handshakes", "TLS handshakes by result", m.handshakes.clone());
        registry.register("gateway_connections", "Connections open now", m.connections.clone());
        registry.register(
            "gateway_unreadable_usage",
            "Responses whose usage could not be read",
            m.unreadable_usage.clone(),
        );
        registry.register(
            "gateway_store_up",
            "Whether the store that budgets are kept in can be used: 1 or 0",
            m.store_up.clone(),
        );
        metrics
    }

    /// The series of a tenant's calls to a deployment.
    #[must_use]
    pub fn calls(&self, tenant: &TenantName, deployment: &DeploymentName, model: &ModelName) -> CallSeries {
        let of_kind = |kind| {
            let (tenant, deployment, model) = (tenant.clone(), deployment.clone(), model.clone());
            self.cost_series(&CostLabels { tenant, deployment, model, kind })
        };
        let settled =
            |source| self.settled.get_or_create_owned(&SettledLabels { tenant: tenant.clone(), source });
        CallSeries {
            single: of_kind(Kind::Single),
            stream: of_kind(Kind::Stream),
            answered: self.requests.get_or_create_owned(&RequestLabels {
                tenant: Some(tenant.clone()),
                deployment: Some(deployment.clone()),
                status: 200,
                reason: "",
            }),
            settled_upstream: settled("upstream"),
            settled_counted: settled("counted"),
        }
    }

    fn cost_series(&self, labels: &CostLabels) -> Arc<CostSeries> {
        let CostLabels { tenant, deployment, model, kind } = labels.clone();
        let key = Key { tenant, deployment: Some(deployment), model: Some(model), kind };
        let mut index = self.cost_series.lock();
        if let Some((_, series)) = index.places.get(&key).and_then(|place| index.all.get(*place)) {
            return Arc::clone(series);
        }
        let series = Arc::new(CostSeries {
            calls: AtomicU64::new(0),
            nano_dollars: AtomicU64::new(0),
            consumed: self.consumed.get_or_create_owned(labels),
            prompt: self.prompt.get_or_create_owned(labels),
            cached_prompt: self.cached_prompt.get_or_create_owned(labels),
            completion: self.completion.get_or_create_owned(labels),
            reasoning: self.reasoning.get_or_create_owned(labels),
            cost: self.cost.get_or_create_owned(labels),
        });
        let place = index.all.len();
        index.places.insert(key.clone(), place);
        index.all.push((key, Arc::clone(&series)));
        series
    }

    /// Reads what the ledger keeps of every series, in the order in which they were made.
    pub(crate) fn read_cost<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = (&Key, Sums)>) -> T) -> T {
        let index = self.cost_series.lock();
        read(&mut index.all.iter().map(|(key, series)| (key, series.sums())))
    }

    /// The gauge of a tenant's open calls.
    #[must_use]
    pub fn inflight(&self, tenant: &TenantName) -> Gauge<i64, AtomicI64> {
        self.inflight.get_or_create_owned(&TenantLabel { tenant: tenant.clone() })
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
        self.requests.get_or_create(&RequestLabels { tenant, deployment, status, reason }).inc();
    }

    /// Counts a call refused by one of its tenant's limits.
    pub fn throttled(&self, tenant: &TenantName, reason: &'static str) {
        self.throttled.get_or_create(&TenantReason { tenant: tenant.clone(), reason }).inc();
    }

    /// Counts a stream that the gateway ended.
    pub fn stream_cut(&self, tenant: &TenantName, reason: &'static str) {
        self.streams_cut.get_or_create(&TenantReason { tenant: tenant.clone(), reason }).inc();
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&HandshakeLabel { result }).inc();
    }
}

impl CostSeries {
    /// Attributes a call's tokens and what they cost.
    pub fn add(&self, usage: &Usage, cost: NanoDollars) {
        self.consumed.inc_by(usage.total().get());
        self.prompt.inc_by(usage.input.get());
        self.cached_prompt.inc_by(usage.cached_input.get());
        self.completion.inc_by(usage.output.get());
        self.reasoning.inc_by(usage.reasoning.get());
        self.cost.inc_by(cost.as_dollars());
        self.nano_dollars.fetch_add(cost.get(), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// What calls have added since the process started.
    fn sums(&self) -> Sums {
        Sums {
            calls: self.calls.load(Ordering::Relaxed),
            prompt: Tokens::new(self.prompt.get()),
            cached_prompt: Tokens::new(self.cached_prompt.get()),
            completion: Tokens::new(self.completion.get()),
            reasoning: Tokens::new(self.reasoning.get()),
            cost: NanoDollars::new(self.nano_dollars.load(Ordering::Relaxed)),
        }
    }
}

/// A registry with every metric of the data path.
#[must_use]
pub fn registry() -> (Registry, Arc<Metrics>) {
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    (registry, metrics)
}
