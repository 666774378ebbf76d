//! `[tiers.NAME]`: the limits that a tenant can be given.

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use crate::names::DeploymentName;
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
