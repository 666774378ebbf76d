//! `[deployments.NAME]` and `[prices."MODEL"]`: what callers can name, and what it costs.

use std::num::NonZeroU64;

use crate::names::{BackendName, ModelName};
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
