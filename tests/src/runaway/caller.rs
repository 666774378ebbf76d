//! Callers in a loop without an end: what each is told to do with a refusal, and what came of its calls.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use memchr::memmem;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::harness::{Client, Gateway, Protocol, Reply, chat};

/// What a caller does when it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Comes back when it was told to, as SDKs do.
    Waits,
    /// Comes back at once, whatever it was told.
    Hammers,
}

/// How one caller behaves.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) gateway: Arc<Gateway>,
    pub(super) deployment: &'static str,
    pub(super) key: String,
    pub(super) manner: Manner,
    pub(super) streams: bool,
    /// The answers' tokens, in turn; none leaves it to the simulator.
    pub(super) answers: &'static [u64],
    /// Makes no call from then on.
    pub(super) until: Instant,
}

/// What came of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Answered whole.
    pub whole: u64,
    /// Answered, and cut short by a budget.
    pub cut: u64,
    /// Refused with 429.
    pub refused: u64,
}

impl Outcome {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let Self { whole, cut, refused } = other;
        Self { whole: self.whole + whole, cut: self.cut + cut, refused: self.refused + refused }
    }
}

impl Caller {
    /// Calls until the time is over, and lets the last call come to its end.
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let mut client = self.gateway.connect(Protocol::Http1).await?;
        let mut outcome = Outcome::default();
        let mut answers = self.answers.iter().cycle();
        while Instant::now() < self.until {
            let reply = self.call(&mut client, answers.next().copied()).await?;
            match reply.status {
                StatusCode::OK if is_whole(&reply) => outcome.whole += 1,
                StatusCode::OK => outcome.cut += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    outcome.refused += 1;
                    let pause = match self.manner {
                        Manner::Waits => retry_after(&reply)?,
                        Manner::Hammers => AT_ONCE,
                    };
                    sleep_until(self.until.min(Instant::now() + pause)).await;
                }
                status => anyhow::bail!("{}: {status}: {:?}", self.deployment, reply.body),
            }
        }
        Ok(outcome)
    }

    async fn call(&self, client: &mut Client, tokens: Option<u64>) -> anyhow::Result<Reply> {
        let text = "Now do the next step of the plan, and then the one after it.";
        let mut body = json!({"messages": [{"role": "user", "content": text}]});
        if self.streams {
            body["stream"] = true.into();
        }
        if let Some(tokens) = tokens {
            body["user"] = format!("sim:{{\"tokens\":{tokens}}}").into();
        }
        client.send(chat(self.deployment, &self.key, &body)?).await
    }
}

/// Whether the model, and not a limit, ended the answer.
fn is_whole(reply: &Reply) -> bool {
    memmem::find(&reply.body, br#""finish_reason":"stop""#).is_some()
}

fn retry_after(reply: &Reply) -> anyhow::Result<Duration> {
    let milliseconds = reply.header("retry-after-ms").context("a 429 without retry-after-ms")?;
    Ok(Duration::from_millis(milliseconds.parse()?))
}

/// The pace of those who hammer: it leaves the machine to the others, and is thousands of times what the budget allows.
const AT_ONCE: Duration = Duration::from_millis(250);
