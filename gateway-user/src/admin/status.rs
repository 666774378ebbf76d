//! `/status`: what a person asks first when something is wrong, as JSON.

use serde_json::{Value, json};

use crate::gateway::{Gateway, Tenant};
use crate::limits::{Now, Quota};
use crate::reply::utc;

/// The state of everything.
pub(super) fn status(gateway: &Gateway, not_ready: Option<&'static str>) -> Value {
    let snapshot = gateway.snapshot();
    let now = gateway.clock.now();
    json!({
        "version": crate::VERSION,
        "commit": crate::COMMIT,
        "ready": not_ready.is_none(),
        "notReady": not_ready.map(str::trim),
        "uptimeSeconds": now.monotonic_ms / 1000,
        "configGeneration": gateway.metrics.config_generation.get(),
        "connections": gateway.metrics.connections.get(),
        "store": store(gateway),
        "kernel": super::kernel::status(&gateway.shedder),
        "backends": snapshot.backends.iter().map(|backend| json!({
            "name": backend.name.as_str(),
            "priority": backend.priority,
            "weight": backend.weight,
            "up": backend.is_up(),
            "identityToken": backend.token_expiry().map(|expiry| expiry.map(utc)),
        })).collect::<Vec<_>>(),
        "tenants": snapshot.tenants().iter().map(|tenant| of_tenant(tenant, now)).collect::<Vec<_>>(),
    })
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
            "overshootBound": leased.map(|tokens| tokens.overshoot_bound),
        },
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
