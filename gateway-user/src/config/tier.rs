//! `[tiers.NAME]`: the limits that a tenant can be given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use super::deployment::Deployments;
use super::document::{Reported, Section};
use super::error::{Problem, nearest};
use super::value;
use crate::names::{DeploymentName, TierName};
use crate::units::{NanoDollars, Tokens};

/// One of `[tiers]`: a set of limits. Each tenant of a tier has counters of its own.
///
/// No tier inherits from another, and a limit that is not written does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The most calls in any 60 seconds; no limit where absent.
    pub calls_per_minute: Option<NonZeroU32>,
    /// The most tokens, of prompts and answers together, in any 60 seconds; no limit where absent.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// The most calls open at once; no limit where absent.
    pub concurrent_calls: Option<NonZeroU32>,
    /// The most tokens in each calendar period; at most one quota a period, no limit where empty.
    pub token_quota: Vec<TokenQuota>,
    /// The most money in each calendar period; at most one quota a period, no limit where empty.
    pub spend_quota: Vec<SpendQuota>,
    /// What its tenants may call.
    pub deployments: AllowedDeployments,
    /// Whether budgets hold in every interleaving or may be overshot by calls under way.
    pub ceiling: Ceiling,
}

/// How many tokens may be used in one calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenQuota {
    /// The quota; at least one token.
    pub tokens: Tokens,
    /// How often it starts afresh.
    pub period: Period,
}

/// How much may be spent in one calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendQuota {
    /// The quota; more than nothing.
    pub dollars: NanoDollars,
    /// How often it starts afresh.
    pub period: Period,
}

/// A calendar period, truncated in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Starts at each full hour.
    Hourly,
    /// Starts at midnight.
    Daily,
    /// Starts on Monday at midnight (ISO 8601).
    Weekly,
    /// Starts on the first of a month at midnight.
    Monthly,
    /// Starts on the first of January at midnight.
    Yearly,
}

impl Period {
    /// The word that configuration, metrics and messages use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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

/// How firmly a budget holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ceiling {
    /// What is settled and held never exceeds the limit, in every interleaving.
    #[default]
    Strict,
    /// Only the prompt's estimate is taken beforehand; the rest is settled afterwards and may overshoot.
    Soft,
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
        let tier = Self {
            calls_per_minute: section.optional("calls_per_minute", value::count32),
            tokens_per_minute: section.optional("tokens_per_minute", value::count64),
            concurrent_calls: section.optional("concurrent_calls", value::count32),
            token_quota: section.each("token_quota", TokenQuota::read),
            spend_quota: section.each("spend_quota", SpendQuota::read),
            deployments: read_allowed(section, declared),
            ceiling: section.or(
                "ceiling",
                Ceiling::default(),
                value::choice(&[("strict", Ceiling::Strict), ("soft", Ceiling::Soft)]),
            ),
        };
        report_twice(section, "token_quota", tier.token_quota.iter().map(|quota| quota.period));
        report_twice(section, "spend_quota", tier.spend_quota.iter().map(|quota| quota.period));
        if !tier.spend_quota.is_empty() {
            report_unpriced(section, &tier.deployments, declared);
        }
        tier
    }
}

impl TokenQuota {
    fn read(section: &mut Section<'_>) -> Result<Self, Reported> {
        let tokens = section.required("tokens", value::count64);
        let period = section.required("period", value::choice(&PERIODS));
        Ok(Self { tokens: Tokens::new(tokens?.get()), period: period? })
    }
}

impl SpendQuota {
    fn read(section: &mut Section<'_>) -> Result<Self, Reported> {
        let dollars = section.required("dollars", |dollars| match value::nano_dollars(dollars)? {
            NanoDollars::ZERO => Err(Problem::NoBudget),
            dollars => Ok(dollars),
        });
        let period = section.required("period", value::choice(&PERIODS));
        Ok(Self { dollars: dollars?, period: period? })
    }
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

fn report_twice(section: &Section<'_>, key: &str, periods: impl Iterator<Item = Period>) {
    let mut seen = BTreeSet::new();
    for period in periods {
        if !seen.insert(period) {
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
