//! `[deployments.NAME]` and `[prices."MODEL"]`: what callers can name, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use super::document::{Reported, Section};
use super::error::{Problem, nearest};
use super::value;
use crate::names::{BackendName, DeploymentName, ModelName};
use crate::units::Prices;

/// One of `[deployments]`: an Azure OpenAI deployment that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The model behind it; it decides encoding and price.
    pub model: ModelName,
    /// What its model costs, where `[prices]` lists it.
    pub prices: Option<Prices>,
    /// Whether its model spends output tokens on reasoning that never appears on the wire.
    pub reasoning: bool,
    /// The most output tokens that one answer of this model can hold, where that is known.
    pub max_output_tokens: Option<NonZeroU64>,
    /// The backends that have it, in the order of `[[backends]]`; at least one, all of them where none are named.
    pub backends: Vec<BackendName>,
}

/// All deployments that can be used, and the names of all that are declared.
#[derive(Debug)]
pub(super) struct Deployments {
    pub(super) all: BTreeMap<DeploymentName, Deployment>,
    pub(super) names: BTreeSet<DeploymentName>,
}

/// Reads `[deployments]`.
pub(super) fn read_all(
    root: &mut Section<'_>,
    backends: &[BackendName],
    prices: &BTreeMap<ModelName, Prices>,
) -> Deployments {
    let mut names = BTreeSet::new();
    let all: BTreeMap<_, _> = root
        .named("deployments", |name, section| {
            let name = DeploymentName::new(name).map_err(|error| section.report(error.into()));
            names.extend(name.clone());
            let deployment = Deployment::read(section, backends, prices);
            Ok((name?, deployment?))
        })
        .into_iter()
        .collect();
    if names.is_empty() {
        root.report_at(&["deployments"], Problem::Empty);
    }
    Deployments { all, names }
}

impl Deployment {
    fn read(
        section: &mut Section<'_>,
        declared: &[BackendName],
        prices: &BTreeMap<ModelName, Prices>,
    ) -> Result<Self, Reported> {
        let model = section.required("model", |model| Ok(ModelName::new(value::text(model)?)?));
        let reasoning = section.optional("reasoning", value::boolean);
        let max_output_tokens = section.optional("max_output_tokens", value::count64);
        let backends = section.entries("backends", |name| {
            let name = value::text(name)?;
            declared.iter().find(|backend| backend.as_str() == name).ok_or_else(|| Problem::NoSuch {
                kind: "backend",
                name: name.to_owned(),
                nearest: nearest(name, declared.iter().map(BackendName::as_str)).map(str::to_owned),
            })
        });
        let model = model?;
        Ok(Self {
            prices: prices.get(&model).copied(),
            reasoning: reasoning.unwrap_or_else(|| reasons(model.as_str())),
            max_output_tokens,
            backends: declared
                .iter()
                .filter(|name| backends.as_ref().is_none_or(|backends| backends.contains(name)))
                .cloned()
                .collect(),
            model,
        })
    }
}

/// Reads `[prices]`.
pub(super) fn read_prices(root: &mut Section<'_>) -> BTreeMap<ModelName, Prices> {
    let all = root.named("prices", |model, section| {
        let model = ModelName::new(model).map_err(|error| section.report(error.into()));
        let input = section.required("input", value::token_price);
        let cached_input = section.optional("cached_input", value::token_price);
        let output = section.required("output", value::token_price);
        let input = input?;
        // Without a price of its own, a token read from the cache is not known to be cheaper.
        Ok((model?, Prices { input, cached_input: cached_input.unwrap_or(input), output: output? }))
    });
    all.into_iter().collect()
}

/// Whether a model is of a family that reasons: the o series, and GPT-5 but for its chat variant.
fn reasons(model: &str) -> bool {
    REASONING.iter().any(|family| {
        model.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    }) && !model.starts_with("gpt-5-chat")
}

const REASONING: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_that_reason_are_known() {
        for model in ["o1", "o1-mini", "o3-pro", "o4-mini", "gpt-5", "gpt-5-nano", "gpt-5.1"] {
            assert!(reasons(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1", "o10", "gpt-5-chat", "gpt-50", "text-embedding-3-small"] {
            assert!(!reasons(model), "{model}");
        }
    }
}
