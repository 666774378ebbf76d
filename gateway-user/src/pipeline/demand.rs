//! A request's demand: what it asks of its tenant's account, what of it cannot be metered, and what has to be changed in its
//! body before it goes upstream.

use std::borrow::Cow;

use crate::api::Api;
use crate::gateway::{Deployment, Tenant};
use crate::limits::{Ask, Ceiling, Grant, Limits, Quota};
use crate::model::LimitField;
use crate::reply::Refusal;
use crate::request::Envelope;
use crate::request::envelope::{CapKey, Unmeterable};
use crate::request::splice::Edit;
use crate::units::Tokens;

/// What an older completion is limited to upstream when the request names no `max_tokens` (OpenAI API reference,
/// "Completions").
const COMPLETION_DEFAULT: Tokens = Tokens::new(16);
/// The first dated API version with `stream_options` (Azure REST API specifications, 2024-09-01-preview). Dates compare as text.
const STREAM_OPTIONS_SINCE: &str = "2024-09-01";

/// A request and the deployment that it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand<'a> {
    pub(super) api: Api,
    pub(super) envelope: &'a Envelope<'a>,
    pub(super) deployment: &'a Deployment,
    /// The dated API version, where the path has the deployment.
    pub(super) api_version: Option<&'a str>,
}

impl Demand<'_> {
    /// Whether the answer is a stream of events.
    pub(super) const fn streams(&self) -> bool {
        match self.api {
            Api::Embeddings => false,
            Api::ChatCompletions | Api::Completions | Api::Responses => self.envelope.stream,
        }
    }

    /// Whether the gateway asks for the usage chunk of the stream, which the caller did not ask for.
    pub(super) fn adds_usage(&self) -> bool {
        self.streams()
            && self.api.usage_is_optional()
            && !self.envelope.asks_for_usage()
            && self.api_version.is_none_or(|version| version >= STREAM_OPTIONS_SINCE)
    }

    /// What the call asks of its tenant's account, its prompt being so long.
    pub(super) fn ask(&self, prompt: Tokens) -> Ask {
        let answers = self.envelope.answers();
        Ask {
            prompt,
            answers,
            output_named: self.named().map(|named| named.saturating_mul(answers)),
            output_most: self.most().saturating_mul(answers),
            prices: self.deployment.prices,
        }
    }

    /// The limit on each answer that has to go upstream: none where all that the model or the caller would let it write is
    /// held for it.
    pub(super) fn limit(&self, grant: &Grant) -> Option<Tokens> {
        let each = Tokens::new(grant.output?.get() / self.envelope.answers());
        let wanted = self.named().unwrap_or(Tokens::MAX).min(self.most());
        (each < wanted).then_some(each)
    }

    /// The changes that the body needs on its way upstream.
    pub(super) fn edits(&self, limit: Option<Tokens>) -> Vec<Edit> {
        let mut edits = Vec::new();
        edits.extend(Edit::model(self.envelope, &self.deployment.name));
        if self.adds_usage() {
            edits.extend(Edit::include_usage(self.envelope));
        }
        if let Some(limit) = limit {
            edits.extend(Edit::cap(self.envelope, self.limit_keys(), limit.get()));
        }
        edits
    }

    /// Refuses a request that escapes metering: under any ceiling one that is answered elsewhere, under a strict one also one
    /// that is billed for more than it shows, and one whose output nothing bounds.
    pub(super) fn check(&self, tenant: &Tenant) -> Result<(), Refusal> {
        let limits = tenant.limits();
        let counts_money = limits.quotas.iter().any(|quota| matches!(quota, Quota::Spend { .. }));
        if self.envelope.is_dearer && counts_money {
            return Err(Refusal::InvalidRequest(
                "this `service_tier` has a price of its own, which a budget in dollars cannot count"
                    .to_owned(),
            ));
        }
        if limits.ceiling == Ceiling::Strict && self.named().is_none() && self.most() == Tokens::MAX {
            return Err(self.unlimited());
        }
        self.envelope
            .unmeterable
            .as_ref()
            .and_then(|unmeterable| problem(unmeterable, limits, tenant.keeps_state()))
            .map_or(Ok(()), |problem| Err(Refusal::InvalidRequest(problem.into_owned())))
    }

    fn unlimited(&self) -> Refusal {
        let field = self.limit_keys().first().map_or("max_tokens", |key| key.as_str());
        Refusal::InvalidRequest(format!(
            "the gateway does not know the most output tokens of the model behind `{0}`, which a strict budget must hold: \
             send `{field}`, or have `deployments.{0}.max_output_tokens` configured",
            self.deployment.name
        ))
    }

    /// The limit on each answer that the caller named.
    fn named(&self) -> Option<Tokens> {
        self.envelope.named_cap(self.limit_keys()).map(|(_, tokens)| Tokens::new(tokens))
    }

    /// The most that upstream writes of one answer where the caller names no limit; [`Tokens::MAX`] where nobody knows.
    fn most(&self) -> Tokens {
        match self.api {
            Api::Embeddings => Tokens::ZERO,
            Api::Completions if self.named().is_none() => COMPLETION_DEFAULT,
            Api::ChatCompletions | Api::Completions | Api::Responses => {
                self.deployment.facts.max_output.unwrap_or(Tokens::MAX)
            }
        }
    }

    /// The fields that limit an answer's tokens, first the one that the gateway limits it with.
    const fn limit_keys(&self) -> &'static [CapKey] {
        match (self.api, self.deployment.facts.limit_field) {
            (Api::Embeddings, _) => &[],
            (Api::Completions, _) => &[CapKey::MaxTokens],
            (Api::Responses, _) => &[CapKey::MaxOutputTokens],
            (Api::ChatCompletions, LimitField::MaxCompletionTokens) => {
                &[CapKey::MaxCompletionTokens, CapKey::MaxTokens]
            }
            (Api::ChatCompletions, LimitField::MaxTokens) => {
                &[CapKey::MaxTokens, CapKey::MaxCompletionTokens]
            }
        }
    }
}

/// Why a request that escapes metering is refused; nothing where it is not.
fn problem(unmeterable: &Unmeterable, limits: &Limits, keeps_state: bool) -> Option<Cow<'static, str>> {
    match (unmeterable, limits.ceiling) {
        (Unmeterable::Background, _) => {
            Some("`background` responses cannot be metered: their answer does not pass through here".into())
        }
        (Unmeterable::StoredState(field), Ceiling::Soft) => {
            (!keeps_state).then(|| stored_state(&format!("`{field}`")).into())
        }
        (
            Unmeterable::StoredInput(_) | Unmeterable::HostedTool(_) | Unmeterable::OwnCalls(_),
            Ceiling::Soft,
        ) => None,
        (Unmeterable::StoredState(field) | Unmeterable::StoredInput(field), Ceiling::Strict) => {
            Some(stored_input(&format!("`{field}`")).into())
        }
        (Unmeterable::HostedTool(kind), Ceiling::Strict) => Some(
            format!(
                "a tool of type `{kind}` runs upstream, as far as the gateway knows, and spends there, which a strict budget \
                 cannot hold; tools that run at the caller's are served, as `function` and `custom`"
            )
            .into(),
        ),
        (Unmeterable::OwnCalls(field), Ceiling::Strict) => Some(
            format!("`{field}` lets upstream make calls of its own, which a strict budget cannot hold").into(),
        ),
    }
}

/// The refusal of what any tenant could name.
pub(super) fn stored_state(what: &str) -> String {
    format!(
        "{what} names what Azure keeps for all tenants of its account together; this tenant's tier does not allow it \
         (`stored_state`)"
    )
}

/// The refusal of input whose size the request does not tell.
pub(super) fn stored_input(what: &str) -> String {
    format!("{what} brings in input that is not in the request, which a strict budget cannot hold")
}
