//! What a tenant's own calls have shown about the estimates of their prompts, deployment by deployment.

use super::Account;
use crate::limits::correction::Correction;
use crate::limits::{Ceiling, Learned};
use crate::names::DeploymentName;
use crate::tokens::Estimate;
use crate::units::Tokens;

impl Account {
    /// What a prompt is held at, given its estimate.
    pub fn corrected(&self, deployment: &DeploymentName, estimate: &Estimate, ceiling: Ceiling) -> Tokens {
        let state = self.state.lock();
        let correction = state.corrections.get(deployment);
        correction.map_or(estimate.tokens, |known| known.apply(estimate.kind, estimate.tokens, ceiling))
    }

    /// Learns from upstream's own count of a prompt that was estimated.
    pub fn learn(&self, deployment: &DeploymentName, estimate: &Estimate, actual: Tokens) {
        let mut state = self.state.lock();
        if let Some(known) = state.corrections.get_mut(deployment) {
            known.learn(estimate.kind, estimate.tokens, actual);
        } else if state.corrections.len() < MOST_DEPLOYMENTS {
            let mut first = Correction::default();
            first.learn(estimate.kind, estimate.tokens, actual);
            state.corrections.insert(deployment.clone(), first);
        }
        state.changes += 1;
    }

    /// What was learned, of each kind of request that there were enough of.
    pub fn learned(&self) -> Vec<(DeploymentName, Learned)> {
        let state = self.state.lock();
        let of = |(name, known): (&DeploymentName, &Correction)| {
            known.learned().map(|learned| (name.clone(), learned)).collect::<Vec<_>>()
        };
        state.corrections.iter().flat_map(of).collect()
    }
}

/// Deployments that are learned about, those among them that the configuration has no more.
const MOST_DEPLOYMENTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Now;
    use crate::tokens::{Basis, PromptKind};

    const NOW: Now = Now { monotonic_ms: 5_000, utc_seconds: 1_709_212_455 };

    const fn estimate(tokens: u64) -> Estimate {
        Estimate { tokens: Tokens::new(tokens), basis: Basis::Counted, kind: PromptKind::Chat }
    }

    fn name(text: &str) -> DeploymentName {
        DeploymentName::new(text).unwrap()
    }

    #[test]
    fn what_one_deployment_shows_is_for_itself_and_outlives_a_restart() {
        let account = Account::default();
        for _ in 0..20 {
            account.learn(&name("a"), &estimate(1000), Tokens::new(1200));
        }
        let restored = Account::restore(&account.checkpoint(NOW).unwrap(), NOW);
        for account in [account, restored] {
            let corrected =
                |deployment| account.corrected(&name(deployment), &estimate(100), Ceiling::Strict);
            assert_eq!((corrected("a").get(), corrected("b").get()), (120, 100));
            let learned = Learned { kind: PromptKind::Chat, thousandths: 1200, calls: 20 };
            assert_eq!(account.learned(), [(name("a"), learned)]);
        }
    }

    #[test]
    fn what_is_learned_has_a_bound() {
        let account = Account::default();
        for number in 0..MOST_DEPLOYMENTS + 5 {
            account.learn(&name(&number.to_string()), &estimate(10), Tokens::new(10));
        }
        assert_eq!(account.state.lock().corrections.len(), MOST_DEPLOYMENTS);
    }
}
