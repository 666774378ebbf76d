//! `[tiers.NAME]`: the limits that a tenant can be given.

use std::collections::{BTreeMap, BTreeSet};

use super::deployment::Deployments;
use super::document::{Reported, Section};
use super::error::{Problem, nearest};
use super::value;
use crate::limits::{Ceiling, Limits, Period, Quota};
use crate::names::{DeploymentName, TierName};
use crate::units::{NanoDollars, Tokens};

/// One of `[tiers]`: a set of limits. Each tenant of a tier has counters of its own.
///
/// No tier inherits from another, and a limit that is not written does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// What its tenants may use; at most one quota of each kind a period.
    pub limits: Limits,
    /// What its tenants may call.
    pub deployments: AllowedDeployments,
    /// Whether, under a soft ceiling, its tenants may name ids of what Azure keeps for all tenants of its account together.
    pub stored_state: bool,
}

/// Which deployments a tier's tenants may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedDeployments {
    /// Every declared one: `["*"]`.
    All,
    /// These, each of them declared.
    Only(BTreeSet<DeploymentName>),
}

impl AllowedDeployments {
    /// Whether a call may name `deployment`, which is declared.
    #[must_use]
    pub fn allows(&self, deployment: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(deployment),
        }
    }
}

/// Reads `[tiers]`.
pub(super) fn read_all(root: &mut Section<'_>, declared: &Deployments) -> BTreeMap<TierName, Tier> {
    let mut listed = false;
    let all = root.named("tiers", |name, section| {
        listed = true;
        let name = TierName::new(name).map_err(|error| section.report(error.into()));
        let tier = Tier::read(section, declared);
        Ok((name?, tier))
    });
    if !listed {
        root.report_at(&["tiers"], Problem::Empty);
    }
    all.into_iter().collect()
}

impl Tier {
    fn read(section: &mut Section<'_>, declared: &Deployments) -> Self {
        let tokens = section.each("token_quota", read_token_quota);
        let spend = section.each("spend_quota", read_spend_quota);
        report_twice(section, "token_quota", &tokens);
        report_twice(section, "spend_quota", &spend);
        let deployments = read_allowed(section, declared);
        if !spend.is_empty() {
            report_unpriced(section, &deployments, declared);
        }
        let limits = Limits {
            calls_per_minute: section.optional("calls_per_minute", value::count32),
            tokens_per_minute: section.optional("tokens_per_minute", value::count32),
            concurrent_calls: section.optional("concurrent_calls", value::count32),
            quotas: tokens.into_iter().chain(spend).collect(),
            ceiling: section.or(
                "ceiling",
                Ceiling::default(),
                value::choice(&[("strict", Ceiling::Strict), ("soft", Ceiling::Soft)]),
            ),
        };
        let stored_state = section.or("stored_state", false, value::boolean);
        Self { limits, deployments, stored_state }
    }
}

fn read_token_quota(section: &mut Section<'_>) -> Result<Quota, Reported> {
    let tokens = section.required("tokens", value::count64);
    let period = section.required("period", value::choice(&PERIODS));
    Ok(Quota::Tokens { limit: Tokens::new(tokens?.get()), period: period? })
}

fn read_spend_quota(section: &mut Section<'_>) -> Result<Quota, Reported> {
    let dollars = section.required("dollars", |dollars| match value::nano_dollars(dollars)? {
        NanoDollars::ZERO => Err(Problem::NoBudget),
        dollars => Ok(dollars),
    });
    let period = section.required("period", value::choice(&PERIODS));
    Ok(Quota::Spend { limit: dollars?, period: period? })
}

fn read_allowed(section: &mut Section<'_>, declared: &Deployments) -> AllowedDeployments {
    let mut star = false;
    let names = section.entries("deployments", |name| match value::text(name)? {
        "*" => {
            star = true;
            Ok(None)
        }
        name => declared.names.get(name).cloned().map(Some).ok_or_else(|| Problem::NoSuch {
            kind: "deployment",
            name: name.to_owned(),
            nearest: nearest(name, declared.names.iter().map(DeploymentName::as_str)).map(str::to_owned),
        }),
    });
    let Some(names) = names else { return AllowedDeployments::All };
    if !star {
        return AllowedDeployments::Only(names.into_iter().flatten().collect());
    }
    if names.len() > 1 {
        section.report_at(&["deployments"], Problem::StarAmongNames);
    }
    AllowedDeployments::All
}

fn report_twice(section: &Section<'_>, key: &str, quotas: &[Quota]) {
    let mut seen = BTreeSet::new();
    for Quota::Tokens { period, .. } | Quota::Spend { period, .. } in quotas {
        if !seen.insert(*period) {
            section.report_at(&[key], Problem::Twice(period.to_string()));
        }
    }
}

fn report_unpriced(section: &Section<'_>, allowed: &AllowedDeployments, declared: &Deployments) {
    for (name, deployment) in &declared.all {
        if deployment.prices.is_none() && allowed.allows(name.as_str()) {
            let problem = Problem::NoPrice { deployment: name.clone(), model: deployment.model.clone() };
            section.report_at(&["spend_quota"], problem);
        }
    }
}

const PERIODS: [(&str, Period); 5] = [
    (Period::Hourly.as_str(), Period::Hourly),
    (Period::Daily.as_str(), Period::Daily),
    (Period::Weekly.as_str(), Period::Weekly),
    (Period::Monthly.as_str(), Period::Monthly),
    (Period::Yearly.as_str(), Period::Yearly),
];
