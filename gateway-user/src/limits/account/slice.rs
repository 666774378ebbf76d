//! How much output a call holds: enough for what it will probably write, and no more than leaves room for others.

use super::rough::Rough;
use super::{Ask, Ceiling, Limits, Refused, State, WAIT_FOR_OPEN_CALLS};
use crate::limits::Now;
use crate::units::Tokens;

/// The fewest output tokens of one answer worth sending a call upstream for; also the fewest that Azure takes as the limit
/// of a response.
const LEAST_SLICE: u64 = 16;
/// A call that names no output limit gets this part of what is free, so that as many more find room beside it.
const UNNAMED_SHARE: u64 = 4;
/// A call that names its output limit gets this part of what is free when the limit is larger.
const NAMED_SHARE: u64 = 2;
/// What an answer is taken to need before the tenant has had one: most chat answers are no longer.
const UNKNOWN_OUTPUT: u64 = 256;
/// By which part of the difference the peak of the answers sinks towards a smaller one.
const PEAK_DECAY: u64 = 16;

/// The sizes of a call's output, in tokens.
pub(super) struct Size {
    wanted: u64,
    /// What it is not worth letting in without.
    pub(super) enough: u64,
    /// What it will probably not go beyond.
    likely: u64,
    /// Which part of what is free it gets.
    share: u64,
}

impl Size {
    /// What to hold of so much room.
    pub(super) fn fair(&self, room: u64) -> u64 {
        // What answers are known to need goes before the share, as long as it leaves as much again.
        let fair = (room / self.share).max(self.likely.min(room / 2)).max(self.enough);
        self.wanted.min(fair).min(room)
    }
}

impl State {
    /// How many output tokens to hold for a call, of whose hold so much is for the bytes of its prompt.
    pub(super) fn output_slice(
        &mut self,
        limits: &Limits,
        ask: &Ask,
        by_bytes: Rough,
        now: Now,
    ) -> Result<Tokens, Refused> {
        let size = self.size(limits, ask)?;
        let spare = self.spare_for(by_bytes);
        let room = self.room(limits, ask.prompt, size.enough, spare, &ask.prices, now)?.get();
        let leased = self.leased_room(limits, ask.prompt, size.enough, &ask.prices, now)?;
        if leased.in_reach < spare.tokens.get() {
            // Other nodes want what this one would hold for nothing.
            return Err(Refused::Unleased { wait: WAIT_FOR_OPEN_CALLS });
        }
        Ok(match limits.ceiling {
            Ceiling::Soft => Tokens::ZERO,
            Ceiling::Strict => Tokens::new(size.fair(room.min(leased.in_reach)).min(leased.free)),
        })
    }

    /// What a call would like to hold, and what it needs at least.
    pub(super) fn size(&self, limits: &Limits, ask: &Ask) -> Result<Size, Refused> {
        let wanted = ask.output_wanted().get();
        let least = match limits.ceiling {
            Ceiling::Strict => LEAST_SLICE.max(ask.answers).min(wanted),
            Ceiling::Soft => 0,
        };
        let likely = self.likely_output().get();
        let mut enough = least;
        if let Some(limit) = limits.tokens_per_minute {
            let limit = u64::from(limit.get());
            if ask.prompt.get().saturating_add(least) > limit {
                let limit = Tokens::new(limit);
                return Err(Refused::Prompt { limit, prompt: ask.prompt, answers: ask.answers });
            }
            if limits.ceiling == Ceiling::Strict {
                // An answer cut short at a sliver of the budget helps nobody: where the tenant's answers are known to
                // need more, the call waits for that much, up to a part of the budget that it is sure to see again.
                enough = likely.min(limit / 16).max(least).min(wanted).min(limit - ask.prompt.get());
            }
        }
        let share = if ask.output_named.is_some() { NAMED_SHARE } else { UNNAMED_SHARE };
        Ok(Size { wanted, enough, likely, share })
    }

    /// Notes what an answer needed.
    pub(super) fn learn(&mut self, output: u64) {
        self.typical_output =
            self.typical_output.max(output) - self.typical_output.saturating_sub(output) / PEAK_DECAY;
    }

    /// What the next answer will probably not go beyond: the peak has sunk since it was seen, and answers vary.
    pub(super) fn likely_output(&self) -> Tokens {
        Tokens::new(match self.typical_output {
            0 => UNKNOWN_OUTPUT,
            typical => typical.saturating_add(typical / 4),
        })
    }
}
