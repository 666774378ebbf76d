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
use crate::units::{NanoDollars, Tokens};

/// Reads every tenant's budgets.
#[derive(Debug)]
pub(super) struct Budgets {
    gateway: Weak<Gateway>,
}

/// One budget of one tenant.
struct Budget {
    window: &'static str,
    limit: Amount,
    used: Amount,
}

/// What a budget is counted in.
#[derive(Clone, Copy)]
enum Amount {
    Tokens(Tokens),
    Dollars(NanoDollars),
}

/// A family of gauges.
struct Shown {
    name: &'static str,
    help: &'static str,
    of: fn(&Budget) -> Amount,
    dollars: bool,
}

const SHOWN: [Shown; 4] = [
    Shown {
        name: "gateway_budget_limit_tokens",
        help: "Tokens that a tenant may use of a window or period",
        of: |budget| budget.limit,
        dollars: false,
    },
    Shown {
        name: "gateway_budget_used_tokens",
        help: "Tokens that a tenant has used or holds of a window or period",
        of: |budget| budget.used,
        dollars: false,
    },
    Shown {
        name: "gateway_budget_limit_dollars",
        help: "Dollars that a tenant may spend in a period",
        of: |budget| budget.limit,
        dollars: true,
    },
    Shown {
        name: "gateway_budget_used_dollars",
        help: "Dollars that a tenant has spent or holds of a period",
        of: |budget| budget.used,
        dollars: true,
    },
];

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
        let budgets: Vec<_> =
            snapshot.tenants().iter().map(|tenant| (&tenant.name, budgets(tenant, now))).collect();
        for Shown { name, help, of, dollars } in SHOWN {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (tenant, budget) in
                budgets.iter().flat_map(|(tenant, all)| all.iter().map(move |one| (tenant, one)))
            {
                let labels = [("tenant", tenant.as_str()), ("window", budget.window)];
                match of(budget) {
                    Amount::Tokens(tokens) if !dollars => {
                        let gauge = ConstGauge::new(i64::try_from(tokens.get()).unwrap_or(i64::MAX));
                        gauge.encode(descriptor.encode_family(&labels)?)?;
                    }
                    Amount::Dollars(amount) if dollars => {
                        let gauge = ConstGauge::new(amount.as_dollars());
                        gauge.encode(descriptor.encode_family(&labels)?)?;
                    }
                    Amount::Tokens(_) | Amount::Dollars(_) => {}
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
        limit: Amount::Tokens(Tokens::new(u64::from(limit.get()))),
        used: Amount::Tokens(counters.tokens_in_window.saturating_add(held)),
    });
    let quotas = tenant.limits().quotas.iter().map(|quota| match *quota {
        Quota::Tokens { limit, period } => Budget {
            window: period.as_str(),
            limit: Amount::Tokens(limit),
            used: Amount::Tokens(counters.periods[period.index()].tokens.saturating_add(held)),
        },
        Quota::Spend { limit, period } => Budget {
            window: period.as_str(),
            limit: Amount::Dollars(limit),
            used: Amount::Dollars(counters.periods[period.index()].cost.saturating_add(counters.cost_held)),
        },
    });
    minute.into_iter().chain(quotas).collect()
}
