//! Budgets, and how old the store's knowledge of them is, as gauges that are read when they are asked for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::gateway::{Gateway, Tenant};
use crate::limits::{Now, Quota};

/// Reads every tenant's budgets.
#[derive(Debug)]
pub(super) struct Budgets {
    gateway: Weak<Gateway>,
}

/// One budget of one tenant, in tokens.
struct Budget {
    window: &'static str,
    limit: u64,
    used: u64,
}

impl Budgets {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::downgrade(gateway) }
    }
}

impl Collector for Budgets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(gateway) = self.gateway.upgrade() else { return Ok(()) };
        let snapshot = gateway.snapshot();
        let now = gateway.clock.now();
        let of_all = [
            ("gateway_budget_limit_tokens", "What a tenant may use of a window or period", true),
            ("gateway_budget_used_tokens", "What a tenant has used or holds of a window or period", false),
        ];
        for (name, help, is_limit) in of_all {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for tenant in snapshot.tenants() {
                for budget in budgets(tenant, now) {
                    let value = if is_limit { budget.limit } else { budget.used };
                    let labels = [("tenant", tenant.name.as_str()), ("window", budget.window)];
                    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                    gauge.encode(descriptor.encode_family(&labels)?)?;
                }
            }
        }
        let metrics = &gateway.metrics;
        let ages = [
            (
                "gateway_store_age_seconds",
                "How old what the store keeps is: what a killed gateway would lose at this moment",
                &metrics.store_kept_at_ms,
            ),
            (
                "gateway_store_on_disk_age_seconds",
                "How old what the store has on its disk is: what a power cut would lose at this moment",
                &metrics.store_on_disk_at_ms,
            ),
        ];
        for (name, help, at_ms) in ages {
            let age = Duration::from_millis(now.monotonic_ms.saturating_sub(at_ms.load(Ordering::Relaxed)));
            ConstGauge::new(age.as_secs_f64()).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}

fn budgets(tenant: &Tenant, now: Now) -> Vec<Budget> {
    let counters = tenant.account.counters(now);
    let held = counters.tokens_held;
    let minute = tenant.limits().tokens_per_minute.map(|limit| Budget {
        window: "minute",
        limit: u64::from(limit.get()),
        used: counters.tokens_in_window.saturating_add(held).get(),
    });
    let quotas = tenant.limits().quotas.iter().filter_map(|quota| match *quota {
        Quota::Tokens { limit, period } => Some(Budget {
            window: period.as_str(),
            limit: limit.get(),
            used: counters.periods[period.index()].tokens.saturating_add(held).get(),
        }),
        Quota::Spend { .. } => None,
    });
    minute.into_iter().chain(quotas).collect()
}
