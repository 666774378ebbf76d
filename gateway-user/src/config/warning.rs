//! What is allowed in a configuration and yet worth a look.

use super::{Config, IdentitySource, Tier};
use crate::names::{DeploymentName, ModelName, TierName};

/// Something worth a look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Tokens that cost nothing in the books.
    #[error(
        "deployments.{deployment}: model `{model}` has no price, so that its cost is counted as nothing; add [prices.\"{model}\"]"
    )]
    NoPrice {
        /// The deployment.
        deployment: DeploymentName,
        /// Its model.
        model: ModelName,
    },
    /// A model whose limits nobody knows.
    #[error(
        "deployments.{deployment}: model `{model}` is not in the table of models: it is taken to reason, and without \
         `max_output_tokens` a strict budget refuses calls that name no limit; add `max_output_tokens`, and \
         `reasoning = false` where it does not reason"
    )]
    UnknownModel {
        /// The deployment.
        deployment: DeploymentName,
        /// Its model.
        model: ModelName,
    },
    /// A tier whose tenants can spend without end.
    #[error("tiers.{0}: limits neither tokens nor dollars, so that its tenants can spend without end")]
    NoBudget(TierName),
    /// Backends that are reached without an identity.
    #[error("identity.source: \"none\" is for a simulator; Azure refuses calls without an identity")]
    NoIdentity,
}

impl Config {
    /// Everything worth a look.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let unpriced = self.deployments.iter().filter(|(_, deployment)| deployment.prices.is_none());
        let unpriced = unpriced.map(|(name, deployment)| Warning::NoPrice {
            deployment: name.clone(),
            model: deployment.model.clone(),
        });
        let unknown = self.deployments.iter().filter(|(_, deployment)| !deployment.is_known);
        let unknown = unknown.map(|(name, deployment)| Warning::UnknownModel {
            deployment: name.clone(),
            model: deployment.model.clone(),
        });
        let unlimited = self.tiers.iter().filter(|(_, tier)| is_unlimited(tier));
        let unlimited = unlimited.map(|(name, _)| Warning::NoBudget(name.clone()));
        let without = (self.identity.source == IdentitySource::None).then_some(Warning::NoIdentity);
        unpriced.chain(unknown).chain(unlimited).chain(without).collect()
    }
}

fn is_unlimited(tier: &Tier) -> bool {
    tier.limits.tokens_per_minute.is_none() && tier.limits.quotas.is_empty()
}
