//! The scripts that run in the store, what they are told and what they answer.

use redis::Value;
use serde_json::json;

use super::StoreError;
use crate::limits::lease::{Booked, RESOURCES, SliceReply};
use crate::limits::{LeaseReply, LeaseRequest};

/// Reports a node's use of a tenant's budgets and leases it more; `lease.lua` says how.
pub(super) const LEASE_SCRIPT: &str = concat!(include_str!("clock.lua"), include_str!("lease.lua"));
/// Counts the nodes that live, and tells one memory of the server's from another.
pub(super) const NODES_SCRIPT: &str = concat!(include_str!("clock.lua"), include_str!("nodes.lua"));

/// Values of one resource in an answer.
const VALUES: usize = 5;

/// A request as the script reads it. Until `settled_ms`, on the server's clock, the server may have lost what other nodes
/// will report again.
#[must_use]
pub fn lease_arguments(node: &str, request: &LeaseRequest, lifetime_ms: u64, settled_ms: u64) -> String {
    let LeaseRequest {
        sequence,
        answered,
        generation,
        used,
        acknowledged,
        window,
        periods,
        slices,
        idle,
        shares,
        leaving,
        made_at: _,
    } = request;
    let booked =
        |&Booked { calls, window_tokens, tokens, cost }: &Booked| [calls, window_tokens, tokens, cost];
    let slices: Vec<_> = slices
        .iter()
        .map(|slice| {
            let limit = slice.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
            json!([limit, slice.leased, slice.held, slice.need, slice.want, slice.share, slice.refused])
        })
        .collect();
    json!({
        "node": node,
        "sequence": sequence,
        "answered": answered,
        "generation": generation,
        "ttl_ms": lifetime_ms,
        "settled_ms": settled_ms,
        "idle": idle,
        "shares": shares,
        "leaving": leaving,
        "used": booked(used),
        "acknowledged": booked(acknowledged),
        "window": window,
        "periods": periods,
        "slices": slices,
    })
    .to_string()
}

/// Reads the script's answer; `None` when it had answered a later request before.
///
/// # Errors
/// When the answer is none of the script's.
pub fn lease_reply(value: &Value) -> Result<Option<LeaseReply>, StoreError> {
    let Value::Array(values) = value else { return Err(StoreError::Answer) };
    let [generation, _nodes, numbers @ ..] = &values[..] else {
        return if values.is_empty() { Ok(None) } else { Err(StoreError::Answer) };
    };
    let Value::BulkString(generation) = generation else { return Err(StoreError::Answer) };
    if numbers.len() != RESOURCES * VALUES {
        return Err(StoreError::Answer);
    }
    let mut slices = [SliceReply::default(); RESOURCES];
    for (slice, values) in slices.iter_mut().zip(numbers.as_chunks::<VALUES>().0) {
        let [leased, available, target, wait_ms, share] = values;
        *slice = SliceReply {
            leased: number(leased)?,
            available: number(available)?,
            target: number(target)?,
            wait_ms: number(wait_ms)?,
            share: number(share)?,
        };
    }
    Ok(Some(LeaseReply { generation: String::from_utf8_lossy(generation).into(), slices }))
}

fn number(value: &Value) -> Result<u64, StoreError> {
    let Value::Int(number) = value else { return Err(StoreError::Answer) };
    u64::try_from(*number).map_err(|_negative| StoreError::Answer)
}
