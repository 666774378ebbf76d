//! `/status`: what a person asks first when something is wrong, as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::Config;
use crate::gateway::{Gateway, Snapshot, Tenant};
use crate::limits::{Now, Quota};
use crate::reply::utc;
use crate::upstream::access::{Denial, Denied, Known};
use crate::upstream::identity::TokenSlot;

/// The state of everything.
pub(super) fn status(gateway: &Gateway, not_ready: Option<&str>) -> Value {
    let snapshot = gateway.snapshot();
    let now = gateway.clock.now();
    json!({
        "version": crate::VERSION,
        "commit": crate::COMMIT,
        "ready": not_ready.is_none(),
        "notReady": not_ready,
        "uptimeSeconds": now.monotonic_ms / 1000,
        "configGeneration": gateway.metrics.config_generation.get(),
        "config": {
            "generation": gateway.metrics.config_generation.get(),
            "refused": gateway.refused().map(|refused| json!({
                "since": utc(refused.since),
                "problem": refused.problem,
            })),
        },
        "certificate": certificate(gateway, &snapshot.config, now),
        "identity": identities(&snapshot).map(identity).collect::<Vec<_>>(),
        "connections": gateway.metrics.connections.get(),
        "store": store(gateway),
        "kernel": super::kernel::status(&gateway.shedder),
        "backends": snapshot.backends.iter().map(|backend| json!({
            "name": backend.name.as_str(),
            "priority": backend.priority,
            "weight": backend.weight,
            "up": backend.is_up(),
            "identityToken": backend.identity().map(|slot| slot.expires_at().map(utc)),
            "role": role(&backend.access()),
            "refused": denial(backend.access()),
        })).collect::<Vec<_>>(),
        "tenants": snapshot.tenants().iter().map(|tenant| of_tenant(tenant, now)).collect::<Vec<_>>(),
    })
}

/// Why there is no identity token, where there is none.
pub(super) fn identity_problem(gateway: &Gateway) -> String {
    let problems: Vec<_> = identities(&gateway.snapshot())
        .filter_map(TokenSlot::problem)
        .map(|problem| problem.to_string())
        .collect();
    if problems.is_empty() { "the last one has ended".to_owned() } else { problems.join("; ") }
}

/// Where the tokens of a configuration's backends are, each scope once.
fn identities(snapshot: &Snapshot) -> impl Iterator<Item = &TokenSlot> {
    let slots = snapshot.backends.iter().filter_map(|backend| backend.identity());
    let by_scope: BTreeMap<_, _> = slots.map(|slot| (slot.scope(), slot)).collect();
    by_scope.into_values()
}

fn identity(slot: &TokenSlot) -> Value {
    let problem = slot.problem();
    json!({
        "scope": slot.scope(),
        "source": slot.source().as_str(),
        "up": problem.is_none(),
        "reason": problem.as_deref(),
        "expiresAt": slot.expires_at().map(utc),
    })
}

fn certificate(gateway: &Gateway, config: &Config, now: Now) -> Value {
    let expires_at = gateway.certificate_expires_at();
    json!({
        "expiresAt": expires_at.map(utc),
        "warning": expires_at
            .and_then(|expires_at| config.certificate_warning(expires_at, now.utc_seconds))
            .map(|warning| warning.to_string()),
    })
}

/// Whether the gateway's identity has the role that a backend wants; nothing while no answer has told.
const fn role(access: &Known) -> Option<&'static str> {
    match access {
        Known::Granted => Some("present"),
        Known::Denied(Denial { about: Denied::Role, .. }) => Some("missing"),
        Known::Denied(Denial { about: Denied::Network, .. }) | Known::Unknown => None,
    }
}

fn denial(access: Known) -> Value {
    match access {
        Known::Denied(denial) => json!({"since": utc(denial.since), "reason": denial.reason}),
        Known::Granted | Known::Unknown => Value::Null,
    }
}

fn store(gateway: &Gateway) -> Value {
    let fleet = gateway.fleet.as_ref().map(|fleet| fleet.status());
    let directory = gateway.store.as_ref().map(|store| {
        let outage = store.outage();
        json!({
            "directory": store.directory().display().to_string(),
            "up": outage.is_none(),
            "downSince": outage.as_ref().map(|outage| utc(outage.since)),
            "problem": outage.as_ref().map(|outage| outage.problem.as_str()),
        })
    });
    fleet.or(directory).unwrap_or_default()
}

fn of_tenant(tenant: &Tenant, now: Now) -> Value {
    let counters = tenant.account.counters(now);
    let limits = tenant.limits();
    let leased = tenant.account.leased_tokens(limits, now);
    json!({
        "name": tenant.name.as_str(),
        "openCalls": {
            "now": counters.open_calls,
            "limit": limits.concurrent_calls,
            "leased": tenant.account.leased_open_calls(limits),
        },
        "callsPerMinute": {"used": counters.calls_in_window, "limit": limits.calls_per_minute},
        "tokensPerMinute": {
            "used": counters.tokens_in_window.get(),
            "held": counters.tokens_held.get(),
            "limit": limits.tokens_per_minute,
            "leased": leased.map(|tokens| tokens.leased),
            "outageShare": leased.map(|tokens| tokens.outage_share),
            "overshootBound": leased.map(|tokens| tokens.overshoot_bound),
        },
        "estimates": tenant.account.learned().into_iter().map(|(deployment, learned)| json!({
            "deployment": deployment.as_str(),
            "kind": learned.kind.as_str(),
            "upstreamOverEstimate": f64::from(u32::try_from(learned.thousandths).unwrap_or(u32::MAX)) / 1000.0,
            "calls": learned.calls,
        })).collect::<Vec<_>>(),
        "quotas": limits.quotas.iter().map(|quota| match *quota {
            Quota::Tokens { limit, period } => json!({
                "period": period.as_str(),
                "tokens": counters.periods[period.index()].tokens.get(),
                "limit": limit.get(),
            }),
            Quota::Spend { limit, period } => json!({
                "period": period.as_str(),
                "dollars": counters.periods[period.index()].cost.as_dollars(),
                "limit": limit.as_dollars(),
            }),
        }).collect::<Vec<_>>(),
    })
}
