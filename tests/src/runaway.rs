//! Tenants whose agents run away, beside one whose callers are honest: what the simulator really generated, against the
//! budget.
//!
//! Four runaway tenants call at the same time, one for each ceiling and for what agents do with a refusal: each with many
//! agents that call without a pause, half of them streaming. Beside them a few honest callers, who name no output limit
//! and come back when they are told to, share another tenant's budget of the same size.

mod caller;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Config, Gateway, Keys, Site};
use crate::simulator::{Behaviour, Options, Simulator, Totals};
use caller::Caller;

pub use caller::{Manner, Outcome};
pub use timeline::{most_within, total_until};

/// How large it is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    /// Tokens per minute of each tenant.
    pub limit: u32,
    /// Agents of each runaway tenant.
    pub agents: u32,
    /// Callers of the honest tenant.
    pub honest_callers: u32,
    /// How long calls are made.
    pub seconds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was planned.
    pub plan: Plan,
    /// The tenants that ran away.
    pub runaways: Vec<Runaway>,
    /// The tenant beside them.
    pub honest: Honest,
}

/// What a tenant's runaway agents came to.
#[derive(Debug, Serialize)]
pub struct Runaway {
    /// The tenant's ceiling: `strict` or `soft`.
    pub ceiling: &'static str,
    /// What its agents did when refused: `waits` or `hammers`.
    pub manner: &'static str,
    /// Calls answered.
    pub answered: u64,
    /// Calls refused.
    pub refused: u64,
    /// Prompt tokens that the simulator processed while calls were made.
    pub prompt_tokens: u64,
    /// Tokens that the simulator generated.
    pub generated_tokens: u64,
    /// The most tokens of both kinds in any 60 seconds.
    pub worst_minute: u64,
    /// By how much that is over the limit.
    pub overshoot: u64,
    /// What all tokens cost at gpt-4o's prices.
    pub dollars: f64,
    /// What a day of it would cost.
    pub dollars_a_day: f64,
}

/// What the honest callers came to.
#[derive(Debug, Serialize)]
pub struct Honest {
    /// Calls answered whole.
    pub whole: u64,
    /// Calls answered and cut short.
    pub cut: u64,
    /// Calls refused.
    pub refused: u64,
    /// Tokens of a call, prompt and answer, on average.
    pub call_tokens: u64,
    /// Calls that someone would have admitted who knew in advance what each would use.
    pub oracle: u64,
    /// Calls answered whole, as a share of the oracle's.
    pub share: f64,
    /// The most tokens in any 60 seconds.
    pub worst_minute: u64,
}

/// The runaway tenants: name and deployment, ceiling, and manner.
const RUNAWAYS: [(&str, &str, Manner); 4] = [
    ("strict-waits", "strict", Manner::Waits),
    ("strict-hammers", "strict", Manner::Hammers),
    ("soft-waits", "soft", Manner::Waits),
    ("soft-hammers", "soft", Manner::Hammers),
];
const HONEST: &str = "honest";
/// Two hundred tokens on average, in no order.
const HONEST_ANSWERS: [u64; 10] = [190, 230, 160, 210, 250, 150, 200, 240, 170, 200];
const HONEST_ANSWER: u64 = 200;
const MINUTE: Duration = Duration::from_mins(1);

/// A runaway agent's answer: a thousand tokens in five seconds.
fn long_answer() -> Behaviour {
    Behaviour {
        tokens: 1_000,
        chunk_tokens: 20,
        chunk_delay: Duration::from_millis(100),
        ..Behaviour::default()
    }
}

/// An honest caller's answer: two hundred tokens in half a second.
fn short_answer() -> Behaviour {
    Behaviour { chunk_tokens: 4, chunk_delay: Duration::from_millis(10), ..long_answer() }
}

/// Runs it on a simulator and a gateway of its own.
///
/// # Errors
/// When a call gets another answer than an answer or a 429.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let azure = Simulator::start(Options {
        behaviour: long_answer(),
        recorded: 0,
        timed: true,
        ..Options::default()
    })?;
    azure.behave_for(HONEST, short_answer());
    let site = Site::new(&azure, &config(&azure, plan.limit)?)?;
    let honest_keys = site.add_tenant(HONEST, Some("strict"))?;
    let mut keys = Vec::new();
    for (name, tier, _) in RUNAWAYS {
        keys.push(site.add_tenant(name, Some(tier))?);
    }
    let gateway = Arc::new(site.start()?);
    let started = Instant::now();
    let until = started + Duration::from_secs(plan.seconds);
    let mut tenants = JoinSet::new();
    for ((name, _, manner), keys) in RUNAWAYS.into_iter().zip(keys) {
        let agent = caller(&gateway, name, &keys, manner, until);
        tenants.spawn(async move { (name, all(agent, plan.agents).await) });
    }
    let honest = caller(&gateway, HONEST, &honest_keys, Manner::Waits, until);
    let honest = Caller { answers: &HONEST_ANSWERS, ..honest };
    tenants.spawn(async move { (HONEST, all(honest, plan.honest_callers).await) });
    let mut outcomes = std::collections::HashMap::new();
    while let Some(tenant) = tenants.join_next().await {
        let (name, outcome) = tenant?;
        outcomes.insert(name, outcome.with_context(|| name.to_owned())?);
    }
    let outcome = |name: &str| outcomes.get(name).copied().unwrap_or_default();
    Ok(Report {
        plan,
        runaways: RUNAWAYS
            .iter()
            .map(|&(name, ceiling, manner)| runaway(&azure, plan, name, ceiling, manner, outcome(name)))
            .collect(),
        honest: judge_honest(&azure, plan, outcome(HONEST)),
    })
}

fn config(azure: &Simulator, limit: u32) -> anyhow::Result<Config> {
    let mut piece = String::from("[prices.\"gpt-4o\"]\ninput = 2.5\ncached_input = 1.25\noutput = 10.0\n");
    for name in RUNAWAYS.map(|(name, _, _)| name).into_iter().chain([HONEST]) {
        piece.push_str(&format!("[deployments.{name}]\nmodel = \"gpt-4o\"\n"));
    }
    for ceiling in ["strict", "soft"] {
        piece.push_str(&format!(
            "[tiers.{ceiling}]\ntokens_per_minute = {limit}\ndeployments = [\"*\"]\nceiling = \"{ceiling}\"\n"
        ));
    }
    Config::for_simulator(azure)?.with(&piece)
}

fn caller(gateway: &Arc<Gateway>, name: &'static str, keys: &Keys, manner: Manner, until: Instant) -> Caller {
    let (gateway, key) = (Arc::clone(gateway), keys.primary.clone());
    Caller { gateway, deployment: name, key, manner, streams: false, answers: &[], until }
}

/// So many of one kind at the same time, every other one streaming.
async fn all(caller: Caller, count: u32) -> anyhow::Result<Outcome> {
    let mut callers = JoinSet::new();
    for number in 0..count {
        callers.spawn(Caller { streams: number % 2 == 0, ..caller.clone() }.run());
    }
    let mut sum = Outcome::default();
    while let Some(outcome) = callers.join_next().await {
        sum = sum.plus(outcome??);
    }
    Ok(sum)
}

fn runaway(
    azure: &Simulator,
    plan: Plan,
    name: &str,
    ceiling: &'static str,
    manner: Manner,
    outcome: Outcome,
) -> Runaway {
    let Totals { prompt_tokens, generated_tokens, .. } = azure.totals(name);
    let worst_minute = most_within(&azure.timeline(name), MINUTE);
    let dollars = (float(prompt_tokens) * 2.5 + float(generated_tokens) * 10.0) / 1e6;
    Runaway {
        ceiling,
        manner: match manner {
            Manner::Waits => "waits",
            Manner::Hammers => "hammers",
        },
        answered: outcome.whole + outcome.cut,
        refused: outcome.refused,
        prompt_tokens,
        generated_tokens,
        worst_minute,
        overshoot: worst_minute.saturating_sub(u64::from(plan.limit)),
        dollars,
        dollars_a_day: dollars / float(plan.seconds) * 86_400.0,
    }
}

fn judge_honest(azure: &Simulator, plan: Plan, outcome: Outcome) -> Honest {
    let totals = azure.totals(HONEST);
    let call_tokens = totals.prompt_tokens.checked_div(totals.calls).unwrap_or_default() + HONEST_ANSWER;
    // Whoever knows what a call will use spends each minute's budget as it begins.
    let oracle = u64::from(plan.limit) / call_tokens * plan.seconds.div_ceil(MINUTE.as_secs());
    let Outcome { whole, cut, refused } = outcome;
    Honest {
        whole,
        cut,
        refused,
        call_tokens,
        oracle,
        share: float(whole) / float(oracle),
        worst_minute: most_within(&azure.timeline(HONEST), MINUTE),
    }
}

#[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
const fn float(count: u64) -> f64 {
    count as f64
}
