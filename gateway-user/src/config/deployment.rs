//! `[deployments.NAME]` and `[prices."MODEL"]`: what callers can name, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64};

use super::document::{Reported, Section};
use super::error::{Problem, nearest};
use super::value;
use crate::model::Model;
use crate::names::{BackendName, DeploymentName, ModelName};
use crate::units::{Prices, Tokens};

/// One of `[deployments]`: an Azure OpenAI deployment that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The model behind it; it decides encoding and price.
    pub model: ModelName,
    /// Whether the table of models has it.
    pub is_known: bool,
    /// What is known of the model: the table of models, and what the file says in its place.
    pub facts: Model,
    /// What its model costs, where `[prices]` lists it.
    pub prices: Option<Prices>,
    /// The most tokens that upstream writes of one answer in a second: what passes may be so far behind what was written.
    pub max_tokens_per_second: NonZeroU32,
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
        let tokens = |count: NonZeroU64| Tokens::new(count.get());
        let max_output = section.optional("max_output_tokens", value::count64).map(tokens);
        let context_window = section.optional("context_window", value::count64).map(tokens);
        let max_tokens_per_second =
            section.or("max_tokens_per_second", DEFAULT_MAX_TOKENS_PER_SECOND, value::count32);
        let backends = section.entries("backends", |name| {
            let name = value::text(name)?;
            declared.iter().find(|backend| backend.as_str() == name).ok_or_else(|| Problem::NoSuch {
                kind: "backend",
                name: name.to_owned(),
                nearest: nearest(name, declared.iter().map(BackendName::as_str)).map(str::to_owned),
            })
        });
        let model = model?;
        let known = Model::find(&model);
        let listed = known.unwrap_or(Model::UNKNOWN);
        Ok(Self {
            is_known: known.is_some(),
            facts: Model {
                reasons: reasoning.unwrap_or(listed.reasons),
                max_output: max_output.or(listed.max_output),
                context_window: context_window.or(listed.context_window),
                ..listed
            },
            prices: prices.get(&model).copied(),
            max_tokens_per_second,
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

/// The fastest that a model on Azure was seen to write one answer, with room to spare: the fastest published measurements of
/// small models are below 250 tokens a second.
const DEFAULT_MAX_TOKENS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(399);
