//! Whether a call is let in.

use super::rough::Rough;
use super::{Account, Ask, Ceiling, Held, Limits, Refused, State, Used, WAIT_FOR_OPEN_CALLS, wait};
use crate::limits::{Grant, Now};
use crate::units::{Prices, Tokens};

/// What a call's prompt is held at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// Its tokens, or as close as they can be told.
    Counted,
    /// Its bytes.
    Bytes,
}

impl Account {
    /// Lets a call in, or says which limit stands in the way. What is let in holds tokens, money and a slot until
    /// [`Account::settle`] or [`Account::release`] is given the same [`Held`].
    ///
    /// # Errors
    /// [`Refused`] names the limit; nothing was counted then.
    pub fn admit(&self, limits: &Limits, ask: &Ask, now: Now) -> Result<(Held, Grant), Refused> {
        let mut state = self.decide();
        state.call_fits(limits, now)?;
        state.let_in(limits, ask, Prompt::Counted, now)
    }

    /// Lets a call in whose prompt is known by its bytes only, as [`Account::admit`] does; nothing where its tokens may
    /// change the decision, or where what is held at bytes would stand in the way of other calls. They are to be counted
    /// then.
    ///
    /// # Errors
    /// [`Refused`] names a limit that no prompt is short enough for.
    pub fn admit_by_bytes(
        &self,
        limits: &Limits,
        ask: &Ask,
        now: Now,
    ) -> Result<Option<(Held, Grant)>, Refused> {
        let mut state = self.decide();
        state.call_fits(limits, now)?;
        Ok(state.let_in(limits, ask, Prompt::Bytes, now).ok())
    }

    /// Why a call would be refused at this moment; nothing where it would be let in.
    pub fn refusal(&self, limits: &Limits, ask: &Ask, now: Now) -> Option<Refused> {
        let mut state = self.decide();
        let fits = state.call_fits(limits, now);
        fits.and_then(|()| state.output_slice(limits, ask, Rough::default(), now)).err()
    }

    /// Whether a call may come at all, whatever it asks for, as far as this node knows.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub fn may_call(&self, limits: &Limits, now: Now) -> Result<(), Refused> {
        self.state.lock().call_fits_here(limits, now)
    }

    /// Counts a call that was not let in, and for which no limit was the reason.
    pub fn count_call(&self, now: Now) {
        let mut state = self.state.lock();
        state.add_call(now);
        state.changes += 1;
    }

    /// The most tokens that a prompt can have and be let in at this moment: a longer one is refused, however long it is.
    pub fn prompt_room(&self, limits: &Limits, prices: &Prices, now: Now) -> Tokens {
        self.decide().prompt_room(limits, prices, now)
    }
}

impl State {
    /// Whether one call more may be let in, whatever it asks for.
    fn call_fits(&mut self, limits: &Limits, now: Now) -> Result<(), Refused> {
        self.call_fits_here(limits, now)?;
        self.leased_call(limits, now)
    }

    /// The same as far as this node's own counters say.
    fn call_fits_here(&mut self, limits: &Limits, now: Now) -> Result<(), Refused> {
        let calls_used = self.calls.used(now);
        if let Some(limit) = limits.calls_per_minute
            && calls_used >= u64::from(limit.get())
        {
            let wait = wait(&mut self.calls, now, calls_used + 1 - u64::from(limit.get()));
            return Err(Refused::Calls { limit: limit.get(), wait });
        }
        match limits.concurrent_calls {
            Some(limit) if self.open_calls >= limit.get() => {
                Err(Refused::Concurrency { limit: limit.get(), wait: WAIT_FOR_OPEN_CALLS })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Lets in a call that fits, if its tokens and its money do.
    fn let_in(
        &mut self,
        limits: &Limits,
        ask: &Ask,
        prompt: Prompt,
        now: Now,
    ) -> Result<(Held, Grant), Refused> {
        let by_bytes = match prompt {
            Prompt::Counted => Rough::default(),
            Prompt::Bytes => Rough::of(ask),
        };
        let output = self.output_slice(limits, ask, by_bytes, now)?;
        let held = Held {
            slots: 1,
            prompt: ask.prompt,
            output,
            likely: match limits.ceiling {
                Ceiling::Strict => Tokens::ZERO,
                Ceiling::Soft => self.likely_output().min(ask.output_wanted()),
            },
            sliced: limits.ceiling == Ceiling::Strict && output < ask.output_wanted(),
            cost: ask.prices.cost_bound(ask.prompt, output),
            by_bytes,
            spent: Used::default(),
        };
        self.hold(held.tokens(), held.cost);
        self.held_prompts = self.held_prompts.saturating_add(held.prompt);
        self.by_bytes = self.by_bytes.plus(by_bytes);
        self.open_calls += held.slots;
        self.add_call(now);
        let grant = Grant {
            output: match limits.ceiling {
                Ceiling::Strict => Some(output),
                Ceiling::Soft => None,
            },
            calls_left: limits.calls_per_minute.map(|limit| self.calls_left(limits, limit, now)),
            tokens_left: limits.tokens_per_minute.map(|limit| self.tokens_left(limits, limit, now)),
        };
        Ok((held, grant))
    }

    fn add_call(&mut self, now: Now) {
        self.calls.add(now, 1);
        if let Some(lease) = &mut self.lease {
            lease.booked.calls += 1;
        }
    }
}
