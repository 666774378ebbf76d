//! Honest callers in virtual time, against an oracle that knows what each call will use.

use std::sync::Arc;

use super::super::Admission;
use super::tests::{PRICES, START, used};
use super::*;

/// Callers of one tenant who name no output limit, call again at once, and come back when they are told to.
struct Callers {
    limit: u32,
    count: usize,
    /// Their prompts' bytes and tokens.
    prompt: (u64, u64),
    /// What their answers need, in turn.
    answers: &'static [u64],
    /// How long the model takes for a token.
    token_ms: u64,
}

#[derive(Debug, Default)]
struct Outcome {
    whole: u64,
    cut: u64,
}

enum State {
    Idle,
    Open(Admission, u64),
}

impl Callers {
    /// Two minutes of calls.
    fn run(&self) -> Outcome {
        let account = Arc::new(Account::default());
        let limits = Limits { tokens_per_minute: NonZeroU32::new(self.limit), ..Limits::default() };
        let mut outcome = Outcome::default();
        let mut needs = self.answers.iter().cycle();
        let mut callers: Vec<_> = (0..self.count as u64).map(|number| (number, State::Idle)).collect();
        loop {
            let (at, state) = callers.iter_mut().min_by_key(|(at, _)| *at).unwrap();
            if *at >= 120_000 {
                return outcome;
            }
            let now = Now { monotonic_ms: START.monotonic_ms + *at, ..START };
            match std::mem::replace(state, State::Idle) {
                State::Idle => {
                    let ask = |prompt| Ask {
                        prompt: Tokens::new(prompt),
                        output_named: None,
                        output_most: Tokens::new(16_384),
                        answers: 1,
                        prices: PRICES,
                    };
                    let by_bytes =
                        Admission::admit_by_bytes(&account, &limits, &ask(self.prompt.0), now).unwrap();
                    let admitted = by_bytes
                        .map_or_else(|| Admission::admit(&account, &limits, &ask(self.prompt.1), now), Ok);
                    match admitted {
                        Ok((admission, _)) => {
                            let need = *needs.next().unwrap();
                            *at += need.min(admission.output_allowed().get()) * self.token_ms;
                            *state = State::Open(admission, need);
                        }
                        Err(Refused::Tokens { wait, .. }) => *at += u64::try_from(wait.as_millis()).unwrap(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
                State::Open(admission, need) => {
                    let output = need.min(admission.output_allowed().get());
                    if output == need {
                        outcome.whole += 1;
                    } else {
                        outcome.cut += 1;
                    }
                    admission.settle(used(self.prompt.1, output), now);
                }
            }
        }
    }

    /// The calls of two minutes that fit the budget.
    fn oracle(&self) -> u64 {
        let mean = self.answers.iter().sum::<u64>() / self.answers.len() as u64;
        u64::from(self.limit) / (self.prompt.1 + mean) * 2
    }
}

#[test]
fn honest_callers_get_what_an_oracle_would_give_them() {
    let varied: &[u64] = &[190, 230, 160, 210, 250, 150, 200, 240, 170, 200];
    let (short, long) = ((130, 23), (7000, 1750));
    for (limit, count, prompt, answers, token_ms, least_percent) in [
        (20_000, 10, short, varied, 2, 95),
        (20_000, 10, short, varied, 10, 95),
        (20_000, 50, short, varied, 2, 95),
        (20_000, 1, short, varied, 2, 95),
        (100_000, 10, short, varied, 2, 95),
        (20_000, 10, short, &[20][..], 10, 95),
        (20_000, 10, short, &[20, 20, 20, 200][..], 10, 95),
        // Ten calls a minute, each of whose prompts has more bytes than are free after the second.
        (20_000, 1, long, varied, 10, 95),
        (20_000, 10, long, varied, 10, 95),
        (20_000, 50, long, varied, 2, 95),
        // The first answers come before it is known how long they are.
        (20_000, 10, short, &[1_000][..], 5, 90),
    ] {
        let callers = Callers { limit, count, prompt, answers, token_ms };
        let (outcome, oracle) = (callers.run(), callers.oracle());
        let percent = outcome.whole * 100 / oracle;
        assert!(percent >= least_percent, "{limit} {count} {prompt:?} {answers:?}: {outcome:?} of {oracle}");
    }
}
