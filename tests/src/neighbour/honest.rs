//! The honest tenant: callers at a steady pace on connections that stay open, and newcomers who connect for one call.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::harness::{Client, Gateway, Protocol, chat, user_says};

/// The honest tenant of a gateway.
#[derive(Debug, Clone)]
pub(super) struct Honest {
    gateway: Arc<Gateway>,
    key: String,
}

/// What it got.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Calls over open connections that were answered 200.
    pub calls: u64,
    /// Milliseconds that half of them took at most.
    pub p50_ms: f64,
    /// Milliseconds that 99 % of them took at most.
    pub p99_ms: f64,
    /// Milliseconds after which 99 % of the callers were woken when it was time: what the machine, and not the gateway, adds
    /// to a call.
    pub late_p99_ms: f64,
    /// Calls and connections that failed.
    pub errors: u64,
    /// How the first of them did.
    pub error: Option<String>,
    /// Newcomers served in a second; one comes every 10 ms, once the one before it is served.
    pub newcomers_per_second: f64,
}

#[derive(Debug, Default)]
struct Seen {
    took: Vec<Duration>,
    late: Vec<Duration>,
    served: u64,
    newcomers: u32,
    errors: Vec<String>,
}

impl Honest {
    pub(super) fn new(gateway: &Arc<Gateway>, key: &str) -> Self {
        Self { gateway: Arc::clone(gateway), key: key.to_owned() }
    }

    /// Calls for so long, and waits for the last answers.
    pub(super) async fn run_for(self, time: Duration) -> anyhow::Result<Figures> {
        let mut running = JoinSet::new();
        let start = Instant::now();
        let until = start + time;
        for number in 0..CALLERS {
            let protocol = [Protocol::Http1, Protocol::Http2][usize::from(number % 2 == 0)];
            let first = start + PACE / CALLERS * number;
            running.spawn(self.clone().call_on(protocol, first, until));
        }
        running.spawn(self.arrive(start, until));
        let mut all = Seen::default();
        while let Some(seen) = running.join_next().await {
            let Seen { took, late, served, newcomers, errors } = seen?;
            all.took.extend(took);
            all.late.extend(late);
            all.errors.extend(errors);
            all.served += served;
            all.newcomers += newcomers;
        }
        all.took.sort_unstable();
        all.late.sort_unstable();
        Ok(Figures {
            calls: all.served,
            p50_ms: percentile(&all.took, 50),
            p99_ms: percentile(&all.took, 99),
            late_p99_ms: percentile(&all.late, 99),
            errors: all.errors.len() as u64,
            error: all.errors.into_iter().next(),
            newcomers_per_second: f64::from(all.newcomers) / start.elapsed().as_secs_f64(),
        })
    }

    /// One caller on one connection.
    async fn call_on(self, protocol: Protocol, first: Instant, until: Instant) -> Seen {
        let mut seen = Seen::default();
        let mut client = None;
        let mut free = first;
        let mut due = interval_at(first, PACE);
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let planned = due.tick().await;
            if planned >= until {
                return seen;
            }
            // One that fell into the call before is not late for want of the machine.
            if planned > free {
                seen.late.push(planned.elapsed());
            }
            let begun = Instant::now();
            match self.call(&mut client, protocol).await {
                Ok(()) => seen.served += 1,
                Err(error) => {
                    seen.errors.push(format!("{error:#}"));
                    client = None;
                }
            }
            // Calls that would have begun in the meantime would have waited too.
            let mut took = begun.elapsed();
            free = Instant::now();
            seen.took.push(took);
            while took > PACE {
                took -= PACE;
                seen.took.push(took);
            }
        }
    }

    async fn call(&self, client: &mut Option<Client>, protocol: Protocol) -> anyhow::Result<()> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.gateway.connect(protocol).await?),
        };
        let reply =
            client.send(chat("chat", &self.key, &user_says("What is the capital of France?"))?).await?;
        anyhow::ensure!(reply.status == 200, "{}: {:?}", reply.status, reply.body);
        Ok(())
    }

    /// Newcomers, one after the other.
    async fn arrive(self, first: Instant, until: Instant) -> Seen {
        let mut seen = Seen::default();
        let mut due = interval_at(first, ARRIVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while due.tick().await < until {
            match self.call(&mut None, Protocol::Http1).await {
                Ok(()) => seen.newcomers += 1,
                Err(error) => seen.errors.push(format!("a newcomer: {error:#}")),
            }
        }
        seen
    }
}

/// In milliseconds, by nearest rank; zero where nothing was measured.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

const CALLERS: u32 = 4;
/// Of each caller: 200 calls a second in all.
const PACE: Duration = Duration::from_millis(20);
const ARRIVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "whole milliseconds are exact")]
    fn a_percentile_is_a_sample_by_nearest_rank() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
