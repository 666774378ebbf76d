//! What tokens cost, by tenant, deployment, model and kind: one series that Prometheus and the ledger both read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::{AdjustedLabels, CostLabels, TenantLabel};
use super::registered;
use crate::ledger::{Adjustment, Assumed, Booked, Counted, Key, Sums};
use crate::limits::Used;
use crate::names::TenantName;
use crate::units::{NanoDollars, Tokens};

/// The families that count tokens and dollars.
#[derive(Debug)]
pub(super) struct CostMetrics {
    consumed: Family<CostLabels, Counter>,
    prompt: Family<CostLabels, Counter>,
    cached_prompt: Family<CostLabels, Counter>,
    completion: Family<CostLabels, Counter>,
    reasoning: Family<CostLabels, Counter>,
    cost: Family<CostLabels, Counter<f64, AtomicU64>>,
    assumed_tokens: Family<TenantLabel, Counter>,
    assumed_cost: Family<TenantLabel, Counter<f64, AtomicU64>>,
    adjusted_tokens: Family<AdjustedLabels, Counter>,
    adjusted_cost: Family<AdjustedLabels, Counter<f64, AtomicU64>>,
    index: Mutex<CostIndex>,
}

/// Every [`CostSeries`]. They outlive configurations, as the counters behind them do.
#[derive(Debug, Default)]
struct CostIndex {
    all: HashMap<Key, Arc<CostSeries>>,
    /// How many there ever were.
    made: u64,
}

/// The series of one tenant, deployment and kind of answer.
#[derive(Debug)]
pub struct CostSeries {
    /// No other series of this process has it.
    serial: u64,
    calls: AtomicU64,
    /// What `cost` has as a float.
    nano_dollars: AtomicU64,
    consumed: Counter,
    prompt: Counter,
    cached_prompt: Counter,
    completion: Counter,
    reasoning: Counter,
    cost: Counter<f64, AtomicU64>,
    assumed_tokens: AtomicU64,
    assumed_nano_dollars: AtomicU64,
    assumed: AssumedSeries,
}

/// The series of all that was assumed of a tenant's calls.
#[derive(Debug)]
struct AssumedSeries {
    tokens: Counter,
    cost: Counter<f64, AtomicU64>,
}

impl CostMetrics {
    pub(super) fn register(to: &mut Registry) -> Self {
        Self {
            consumed: registered(to, "aoai_tokens_consumed", "Tokens of prompts and answers"),
            prompt: registered(to, "aoai_prompt_tokens", "Tokens of prompts"),
            cached_prompt: registered(
                to,
                "aoai_cached_prompt_tokens",
                "Prompt tokens that upstream read from its cache",
            ),
            completion: registered(to, "aoai_completion_tokens", "Tokens of answers, reasoning included"),
            reasoning: registered(to, "aoai_reasoning_tokens", "Tokens spent on reasoning"),
            cost: registered(to, "aoai_cost_dollars", "What the tokens cost, by the configured prices"),
            assumed_tokens: registered(
                to,
                "gateway_assumed_tokens",
                "Tokens that were booked though nobody saw them: of calls that timed out or whose caller hung up",
            ),
            assumed_cost: registered(
                to,
                "gateway_assumed_cost_dollars",
                "What the tokens cost that were booked though nobody saw them",
            ),
            adjusted_tokens: registered(
                to,
                "gateway_adjusted_tokens",
                "Tokens that operators gave back or charged beyond those of calls",
            ),
            adjusted_cost: registered(
                to,
                "gateway_adjusted_cost_dollars",
                "Dollars that operators gave back or charged beyond those of calls",
            ),
            index: Mutex::default(),
        }
    }

    /// Counts what an operator gave back or charged.
    pub(super) fn adjusted(&self, adjustment: &Adjustment) {
        self.adjust(&adjustment.tenant, GIVEN_BACK, adjustment.given_back());
        self.adjust(&adjustment.tenant, CHARGED, adjustment.charged());
    }

    fn adjust(&self, tenant: &TenantName, direction: &'static str, used: Used) {
        let labels = AdjustedLabels { tenant: tenant.clone(), direction };
        self.adjusted_tokens.get_or_create(&labels).inc_by(used.tokens.get());
        self.adjusted_cost.get_or_create(&labels).inc_by(used.cost.as_dollars());
    }

    /// The series of these labels, made where there is none.
    pub(super) fn series(&self, labels: &CostLabels) -> Arc<CostSeries> {
        let CostLabels { tenant, deployment, model, kind } = labels.clone();
        let of_tenant = TenantLabel { tenant: tenant.clone() };
        let key = Key { tenant, deployment: Some(deployment), model: Some(model), kind };
        let mut index = self.index.lock();
        if let Some(series) = index.all.get(&key) {
            return Arc::clone(series);
        }
        // Shown from the start, so that Prometheus sees the first adjustment as an increase.
        self.adjust(&key.tenant, GIVEN_BACK, Used::default());
        self.adjust(&key.tenant, CHARGED, Used::default());
        index.made += 1;
        let series = Arc::new(CostSeries {
            serial: index.made,
            calls: AtomicU64::new(0),
            nano_dollars: AtomicU64::new(0),
            consumed: self.consumed.get_or_create_owned(labels),
            prompt: self.prompt.get_or_create_owned(labels),
            cached_prompt: self.cached_prompt.get_or_create_owned(labels),
            completion: self.completion.get_or_create_owned(labels),
            reasoning: self.reasoning.get_or_create_owned(labels),
            cost: self.cost.get_or_create_owned(labels),
            assumed_tokens: AtomicU64::new(0),
            assumed_nano_dollars: AtomicU64::new(0),
            assumed: AssumedSeries {
                tokens: self.assumed_tokens.get_or_create_owned(&of_tenant),
                cost: self.assumed_cost.get_or_create_owned(&of_tenant),
            },
        });
        index.all.insert(key, Arc::clone(&series));
        series
    }

    /// Drops a tenant's series; gives what they were about.
    pub(super) fn forget(&self, tenant: &TenantName) -> Vec<Key> {
        let gone: Vec<_> = {
            let mut index = self.index.lock();
            index.all.extract_if(|key, _| key.tenant == *tenant).map(|(key, _)| key).collect()
        };
        for Key { tenant, deployment, model, kind } in gone.iter().cloned() {
            let (Some(deployment), Some(model)) = (deployment, model) else { continue };
            let labels = CostLabels { tenant, deployment, model, kind };
            let Self { consumed, prompt, cached_prompt, completion, reasoning, .. } = self;
            for tokens in [consumed, prompt, cached_prompt, completion, reasoning] {
                tokens.remove(&labels);
            }
            self.cost.remove(&labels);
        }
        let of_tenant = TenantLabel { tenant: tenant.clone() };
        self.assumed_tokens.remove(&of_tenant);
        self.assumed_cost.remove(&of_tenant);
        for direction in [GIVEN_BACK, CHARGED] {
            let labels = AdjustedLabels { tenant: tenant.clone(), direction };
            self.adjusted_tokens.remove(&labels);
            self.adjusted_cost.remove(&labels);
        }
        gone
    }

    /// Reads every series.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = Counted<'_>>) -> T) -> T {
        let index = self.index.lock();
        let counted = |(key, series): (_, &Arc<CostSeries>)| Counted {
            serial: series.serial,
            key,
            sums: series.sums(),
        };
        read(&mut index.all.iter().map(counted))
    }
}

/// The directions of an adjustment.
const GIVEN_BACK: &str = "given_back";
const CHARGED: &str = "charged";

impl CostSeries {
    /// Attributes a call's tokens and what they cost.
    pub fn add(&self, booked: &Booked) {
        let Booked { usage, cost, assumed } = booked;
        self.consumed.inc_by(usage.total().get());
        self.prompt.inc_by(usage.input.get());
        self.cached_prompt.inc_by(usage.cached_input.get());
        self.completion.inc_by(usage.output.get());
        self.reasoning.inc_by(usage.reasoning.get());
        self.cost.inc_by(cost.as_dollars());
        self.nano_dollars.fetch_add(cost.get(), Ordering::Relaxed);
        if *assumed != Assumed::default() {
            self.assumed.tokens.inc_by(assumed.tokens.get());
            self.assumed.cost.inc_by(assumed.cost.as_dollars());
            self.assumed_tokens.fetch_add(assumed.tokens.get(), Ordering::Relaxed);
            self.assumed_nano_dollars.fetch_add(assumed.cost.get(), Ordering::Relaxed);
        }
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
            assumed_tokens: Tokens::new(self.assumed_tokens.load(Ordering::Relaxed)),
            assumed_cost: NanoDollars::new(self.assumed_nano_dollars.load(Ordering::Relaxed)),
            ..Sums::default()
        }
    }
}
