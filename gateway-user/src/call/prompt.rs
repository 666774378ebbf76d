//! A call's prompt: what it is held at, and how long it is where that has to be known.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::api::Api;
use crate::buffers::Reserved;
use crate::compute::{Running, Stop};
use crate::gateway::{Deployment, Gateway, Tenant};
use crate::model::Model;
use crate::tokens::{self, Counted, Estimate};
use crate::units::Tokens;

/// A prompt of so many bytes is tokenised where the call runs; a longer one where it is in nobody's way.
const SHORT: usize = 4 * 1024;
/// A body of so many bytes may have come in one piece; longer ones mostly come in several, and are put together.
const ONE_PIECE: usize = 64 * 1024;
/// Bytes to a token, where nothing was tokenised: what most prompts have.
const USUAL_BYTES: u64 = 4;

/// What a call's prompt is held at.
#[derive(Debug)]
pub(crate) enum Prompt {
    /// Its tokens, as they were estimated and corrected.
    Counted {
        /// What it is held at.
        tokens: Tokens,
        /// What that rests on.
        estimate: Estimate,
    },
    /// Its bytes. Whether it has to be counted shows when the call ends.
    Uncounted {
        /// What it is held at.
        bound: Tokens,
        /// The request, which may have to be counted.
        request: Uncounted,
        /// The counting of it, once it has begun.
        counting: Option<Running<Counted>>,
    },
    /// Its bytes, of a call that has ended and needed no more.
    Bound(Tokens),
}

/// A request whose prompt may have to be counted.
#[derive(Debug)]
pub(crate) struct Uncounted {
    /// Which API it is of.
    pub(crate) api: Api,
    /// The caller's own.
    pub(crate) body: Bytes,
    /// The body's memory.
    pub(crate) reserved: Reserved,
}

impl Prompt {
    /// What it is held at.
    pub(crate) const fn held(&self) -> Tokens {
        match self {
            Self::Counted { tokens: held, .. } | Self::Uncounted { bound: held, .. } | Self::Bound(held) => {
                *held
            }
        }
    }

    /// About how many tokens it has.
    pub(crate) const fn likely(&self) -> Tokens {
        match self {
            Self::Counted { tokens, .. } => *tokens,
            Self::Uncounted { bound, .. } | Self::Bound(bound) => {
                Tokens::new(bound.get().div_ceil(USUAL_BYTES))
            }
        }
    }

    /// What it is held at by, where it was counted.
    pub(crate) const fn estimate(&self) -> Option<&Estimate> {
        match self {
            Self::Counted { estimate, .. } => Some(estimate),
            Self::Uncounted { .. } | Self::Bound(_) => None,
        }
    }

    /// Whether it is held at its bytes, and could be counted.
    pub(crate) const fn is_uncounted(&self) -> bool {
        matches!(self, Self::Uncounted { .. })
    }

    /// The request, if it was not counted. It will not be, by this prompt.
    pub(super) fn take_uncounted(&mut self) -> Option<Uncounted> {
        let bound = Self::Bound(self.held());
        match std::mem::replace(self, bound) {
            Self::Uncounted { request, .. } => Some(request),
            counted @ Self::Counted { .. } => {
                *self = counted;
                None
            }
            Self::Bound(_) => None,
        }
    }

    /// Counts it; nothing where that is done or not needed any more.
    pub(super) fn poll_count(
        &mut self,
        gateway: &Gateway,
        tenant: &Tenant,
        deployment: &Deployment,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Estimate>> {
        let Self::Uncounted { request, counting, .. } = self else { return Poll::Ready(None) };
        let running = match counting {
            Some(running) => running,
            None if is_short(&request.body) => {
                return Poll::Ready(Some(request.count(gateway, &deployment.facts)));
            }
            None => {
                let count =
                    counted_apart(gateway, tenant, deployment, request.api, &request.body, Tokens::MAX);
                counting.insert(count)
            }
        };
        let estimate = match ready!(Pin::new(running).poll(cx)) {
            Ok(Counted::Whole(estimate) | Counted::Beyond(estimate)) => estimate,
            // It can only fail by a panic in the counting, and then the bytes are a bound.
            Err(_panicked) => Estimate::of_bytes(request.api, &request.body),
        };
        Poll::Ready(Some(estimate))
    }

    /// Sees to it that the call keeps no more than its request, where it is for long: a body that came in one piece is a part of
    /// the connection's buffer, which may be much larger.
    pub(super) fn keep_for_long(&mut self) {
        if let Self::Uncounted { request, .. } = self
            && request.body.len() <= ONE_PIECE
        {
            request.body = Bytes::copy_from_slice(&request.body);
        }
    }

    /// Whether the tenant's requests take so much memory that this one should not keep its own for long.
    pub(super) fn is_in_the_way(&self) -> bool {
        matches!(self, Self::Uncounted { request, .. } if request.body.len() > SHORT && request.reserved.is_scarce())
    }
}

impl Uncounted {
    /// Counts it at once, on this thread.
    pub(super) fn count(&self, gateway: &Gateway, model: &Model) -> Estimate {
        gateway.metrics.prompts_counted.inc();
        tokens::estimate_prompt(self.api, model, &self.body)
    }
}

/// The tokens of a prompt, counted no further than to where they are more than `most`.
///
/// # Errors
/// When the counting panics: then its bytes are a bound.
pub(crate) async fn count(
    gateway: &Gateway,
    tenant: &Tenant,
    deployment: &Deployment,
    api: Api,
    body: &Bytes,
    most: Tokens,
) -> Counted {
    if is_short(body) {
        gateway.metrics.prompts_counted.inc();
        return tokens::count_prompt(api, &deployment.facts, body, most, Stop::default());
    }
    let counted = counted_apart(gateway, tenant, deployment, api, body, most).await;
    counted.unwrap_or_else(|_panicked| Counted::Whole(Estimate::of_bytes(api, body)))
}

/// The most that a prompt can cost where its bytes alone do not tell.
pub(crate) async fn bound(
    gateway: &Gateway,
    tenant: &Tenant,
    deployment: &Deployment,
    api: Api,
    body: &Bytes,
) -> Estimate {
    if is_short(body) {
        return tokens::bound_prompt(api, &deployment.facts, body);
    }
    let (model, bytes) = (deployment.facts, body.clone());
    let bound = gateway.compute.run(&tenant.name, move |_stop| tokens::bound_prompt(api, &model, &bytes));
    bound.await.unwrap_or_else(|_panicked| Estimate::of_bytes(api, body))
}

fn counted_apart(
    gateway: &Gateway,
    tenant: &Tenant,
    deployment: &Deployment,
    api: Api,
    body: &Bytes,
    most: Tokens,
) -> Running<Counted> {
    gateway.metrics.prompts_counted.inc();
    let (model, bytes) = (deployment.facts, body.clone());
    gateway
        .compute
        .run(&tenant.name, move |stop| tokens::count_prompt(api, &model, &bytes, most, stop.clone()))
}

fn is_short(body: &[u8]) -> bool {
    body.len() <= SHORT && !tokens::may_hold_file(body)
}
