//! What is allowed in a configuration and yet worth a look.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::key::joined;
use super::{Config, Endpoint, IdentitySource, Tier};
use crate::limits::Ceiling;
use crate::names::{BackendName, DeploymentName, ModelName, TierName};

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
    /// Tenants that may name what Azure keeps for all tenants together.
    #[error(
        "tiers.{0}: `stored_state = true` lets its tenants read by its id what Azure has stored for any tenant; answers are stored unless a request says `\"store\": false`"
    )]
    SharedState(TierName),
    /// Backends that are reached without an identity.
    #[error("identity.source: \"none\" is for a simulator; Azure refuses calls without an identity")]
    NoIdentity,
    /// A value that a template left to be filled in.
    #[error("{0}: holds a placeholder; write the real value")]
    Placeholder(String),
    /// An endpoint with a path that callers' requests bring along.
    #[error(
        "backends.{backend}.endpoint: Azure would be asked for `{}/openai/…`, because the path of each call is added to it; write \"{right}\"",
        endpoint.base_path()
    )]
    PortalPath {
        /// The backend.
        backend: BackendName,
        /// What is configured.
        endpoint: Endpoint,
        /// The endpoint without that path.
        right: String,
    },
    /// An admin port that other hosts reach.
    #[error(
        "admin.address: {0} is open to other hosts, in plain HTTP and without a key: who reaches it reads /status and /usage; use a loopback address, or let only probes and Prometheus through to it"
    )]
    OpenAdmin(SocketAddr),
    /// A price that is far from any model's.
    #[error(
        "{}.{key}: {} for a million tokens is far from the price of any model; prices are for a million tokens, not for one or a thousand",
        joined("prices", model.as_str()),
        dollars(*picos)
    )]
    FarPrice {
        /// The model.
        model: ModelName,
        /// Which of its prices.
        key: &'static str,
        /// The price in millionths of a dollar for a million tokens.
        picos: u64,
    },
    /// A limit that hardly a call fits into.
    #[error(
        "tiers.{tier}.tokens_per_minute: {tokens} tokens are fewer than one ordinary call needs, prompt and answer together (about {ORDINARY_CALL})"
    )]
    FewTokens {
        /// The tier.
        tier: TierName,
        /// Its limit.
        tokens: u32,
    },
    /// A file with what others are not to know.
    #[error("{}: every user of this host can read it: take that from them with chmod o-rwx", .0.display())]
    ReadableByOthers(PathBuf),
    /// A certificate that no caller takes any more.
    #[error("listen.certificate: {} expired {}, and callers refuse it; replace it", path.display(), in_days(*days, "ago"))]
    CertificateExpired {
        /// The file.
        path: PathBuf,
        /// Whole days since then.
        days: u64,
    },
    /// A certificate that callers will soon refuse.
    #[error("listen.certificate: {} expires {}; replace it", path.display(), in_days(*days, "from now"))]
    CertificateExpires {
        /// The file.
        path: PathBuf,
        /// Whole days until then.
        days: u64,
    },
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
        let open = (!self.admin.address.ip().to_canonical().is_loopback())
            .then_some(Warning::OpenAdmin(self.admin.address));
        unpriced
            .chain(unknown)
            .chain(unlimited)
            .chain(without)
            .chain(self.placeholders.iter().cloned().map(Warning::Placeholder))
            .chain(self.portal_paths())
            .chain(open)
            .chain(self.far_prices())
            .chain(self.few_tokens())
            .collect()
    }

    /// What is worth a look in a certificate that expires at `expires_at`, in seconds since 1970-01-01 UTC as `now` is.
    #[must_use]
    pub fn certificate_warning(&self, expires_at: u64, now: u64) -> Option<Warning> {
        let path = self.listen.certificate.clone();
        match expires_at.checked_sub(now) {
            None => Some(Warning::CertificateExpired { path, days: (now - expires_at) / DAY }),
            Some(left) if left < EXPIRES_SOON => Some(Warning::CertificateExpires { path, days: left / DAY }),
            Some(_) => None,
        }
    }

    /// What is worth a look where the tenants are so many.
    pub fn warnings_among(&self, tenants: usize) -> impl Iterator<Item = Warning> {
        // A strict ceiling refuses such ids in any case: their size is not known.
        let reads = |tier: &Tier| tier.stored_state && tier.limits.ceiling == Ceiling::Soft;
        let shares = self.tiers.iter().filter(move |(_, tier)| tenants > 1 && reads(tier));
        shares.map(|(name, _)| Warning::SharedState(name.clone()))
    }

    fn portal_paths(&self) -> impl Iterator<Item = Warning> {
        self.backends.iter().filter_map(|backend| {
            let right = backend.endpoint.without_api_path()?;
            Some(Warning::PortalPath {
                backend: backend.name.clone(),
                endpoint: backend.endpoint.clone(),
                right,
            })
        })
    }

    fn far_prices(&self) -> impl Iterator<Item = Warning> {
        self.prices.iter().flat_map(|(model, prices)| {
            // Where it is not written, `cached_input` is as `input`.
            let cached = (prices.cached_input != prices.input).then_some(prices.cached_input);
            let all = [
                ("input", Some(prices.input), LEAST_PRICE),
                ("cached_input", cached, LEAST_PRICE),
                ("output", Some(prices.output), LEAST_OUTPUT_PRICE),
            ];
            all.into_iter().filter_map(|(key, price, least)| {
                let picos = price?.pico_dollars();
                let is_far = picos != 0 && !(least..=MOST_PRICE).contains(&picos);
                is_far.then(|| Warning::FarPrice { model: model.clone(), key, picos })
            })
        })
    }

    fn few_tokens(&self) -> impl Iterator<Item = Warning> {
        self.tiers.iter().filter_map(|(name, tier)| {
            let tokens = tier.limits.tokens_per_minute?.get();
            (tokens < ORDINARY_CALL).then(|| Warning::FewTokens { tier: name.clone(), tokens })
        })
    }
}

fn is_unlimited(tier: &Tier) -> bool {
    tier.limits.tokens_per_minute.is_none() && tier.limits.quotas.is_empty()
}

/// Millionths of a dollar as dollars, with as many decimals as it needs.
fn dollars(picos: u64) -> String {
    let text = format!("${}.{:06}", picos / 1_000_000, picos % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn in_days(days: u64, direction: &str) -> String {
    match days {
        0 => format!("less than a day {direction}"),
        1 => format!("1 day {direction}"),
        days => format!("{days} days {direction}"),
    }
}

const DAY: u64 = 24 * 60 * 60;
/// Time enough to ask whoever issues certificates, and more than the third of 90 days at which ACME clients renew.
const EXPIRES_SOON: u64 = 30 * DAY;
/// $0.001 for a million tokens: cheaper than a token read from the cache of the smallest model.
const LEAST_PRICE: u64 = 1_000;
/// $0.03 for a million tokens: cheaper than what the smallest model writes, and dearer than a thousand tokens of most.
const LEAST_OUTPUT_PRICE: u64 = 30_000;
/// $1,000 for a million tokens: dearer than what the largest model writes.
const MOST_PRICE: u64 = 1_000_000_000;
/// A prompt of a page and an answer of half a page.
const ORDINARY_CALL: u32 = 1000;

#[cfg(test)]
mod tests;
