//! What Prometheus sees of a fleet.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::gateway::{Gateway, Tenant};
use crate::metrics::{Metrics, histogram, registered};

/// Bounds for a request to the store, in seconds; beyond the last there is the deadline.
const STORE_TIME: [f64; 10] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25];

/// Metrics of the store.
#[derive(Debug)]
pub(super) struct FleetMetrics {
    pub(super) up: Gauge,
    pub(super) nodes: Gauge,
    pub(super) lease_seconds: Histogram,
}

impl FleetMetrics {
    pub(super) fn register(common: &Metrics, registry: &mut Registry) -> Self {
        Self {
            up: common.store_up.clone(),
            nodes: registered(
                registry,
                "gateway_fleet_nodes",
                "Nodes that lived when the store was last reached",
            ),
            lease_seconds: histogram(
                registry,
                "gateway_fleet_lease_seconds",
                "Requests to the store for a lease, failed ones included",
                &STORE_TIME,
            ),
        }
    }
}

/// What is leased, read from the accounts when it is asked for.
#[derive(Debug)]
pub struct Leases {
    gateway: Weak<Gateway>,
}

impl Leases {
    /// A collector over a gateway's tenants.
    #[must_use]
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::downgrade(gateway) }
    }
}

impl Collector for Leases {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(gateway) = self.gateway.upgrade() else { return Ok(()) };
        let snapshot = gateway.snapshot();
        let now = gateway.clock.now();
        let tokens = |tenant: &Tenant| tenant.account.leased_tokens(tenant.limits(), now);
        let mut of_all = |name, help, value: &dyn Fn(&Tenant) -> Option<u64>| {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for tenant in snapshot.tenants() {
                let Some(value) = value(tenant) else { continue };
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(descriptor.encode_family(&[("tenant", tenant.name.as_str())])?)?;
            }
            Ok(())
        };
        of_all("gateway_fleet_leased_tokens", "Tokens of the minute leased to this node", &|tenant| {
            tokens(tenant).map(|tokens| tokens.leased)
        })?;
        of_all(
            "gateway_fleet_overshoot_bound_tokens",
            "Tokens of the minute that this node has used or holds and the store keeps nothing for; 0 while no limit can be passed",
            &|tenant| tokens(tenant).map(|tokens| tokens.overshoot_bound),
        )?;
        of_all(
            "gateway_fleet_outage_share_tokens",
            "Tokens that this node may use beside its lease in any minute in which the store is away",
            &|tenant| tokens(tenant).map(|tokens| tokens.outage_share),
        )?;
        of_all(
            "gateway_fleet_leased_open_calls",
            "Slots for calls open at once leased to this node",
            &|tenant| tenant.account.leased_open_calls(tenant.limits()),
        )
    }
}
