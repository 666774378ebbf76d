//! How much of a tenant's limits is neither used nor held.

use super::rough::Rough;
use super::{Limits, Refused, State, wait};
use crate::limits::Now;
use crate::limits::period::Quota;
use crate::units::{Prices, TokenPrice, Tokens};

impl State {
    /// How many output tokens every limit has room for on this node beside a prompt; refused where that is fewer than `enough`,
    /// or less than is to be spared.
    pub(super) fn room(
        &mut self,
        limits: &Limits,
        prompt: Tokens,
        enough: u64,
        spare: Rough,
        prices: &Prices,
        now: Now,
    ) -> Result<Tokens, Refused> {
        self.roll(now);
        let enough_tokens = enough.max(spare.tokens.get());
        let mut room = u64::MAX;
        for quota in &limits.quotas {
            match *quota {
                Quota::Tokens { limit, period } => {
                    let book = self.books[period.index()];
                    let taken = book.tokens.saturating_add(self.held).saturating_add(prompt);
                    room = room.min(
                        fits(limit.get(), taken.get(), enough_tokens).ok_or(Refused::TokenQuota {
                            limit,
                            period,
                            ends_at: book.ends_at,
                        })?,
                    );
                }
                Quota::Spend { limit, period } => {
                    let book = self.books[period.index()];
                    let prompt_cost = prices.cost_bound(prompt, Tokens::ZERO);
                    let taken = book.cost.saturating_add(self.cost_held).saturating_add(prompt_cost);
                    let enough_cost = prices.cost_bound(Tokens::ZERO, Tokens::new(enough)).max(spare.cost);
                    let free = fits(limit.get(), taken.get(), enough_cost.get())
                        .ok_or(Refused::SpendQuota { limit, period, ends_at: book.ends_at })?;
                    room = room.min(affordable(free, prices.output));
                }
            }
        }
        if let Some(limit) = limits.tokens_per_minute {
            let limit = u64::from(limit.get());
            let used = self.tokens.used(now);
            let taken = used.saturating_add(self.held.get()).saturating_add(prompt.get());
            room = room.min(match fits(limit, taken, enough_tokens) {
                Some(free) => free,
                None => {
                    let excess = taken.saturating_add(enough).saturating_sub(limit);
                    let wait = wait(&mut self.tokens, now, excess);
                    return Err(Refused::Tokens { limit: Tokens::new(limit), wait });
                }
            });
        }
        Ok(Tokens::new(room))
    }

    /// The most tokens of a prompt that every limit has room for on this node.
    pub(super) fn prompt_room(&mut self, limits: &Limits, prices: &Prices, now: Now) -> Tokens {
        self.roll(now);
        let quotas = limits.quotas.iter().map(|quota| match *quota {
            Quota::Tokens { limit, period } => {
                limit.saturating_sub(self.books[period.index()].tokens).saturating_sub(self.held).get()
            }
            Quota::Spend { limit, period } => {
                let taken = self.books[period.index()].cost.saturating_add(self.cost_held);
                affordable(limit.saturating_sub(taken).get(), prices.dearest_input())
            }
        });
        let room = quotas.min().unwrap_or(u64::MAX);
        let minute = limits.tokens_per_minute.map_or(u64::MAX, |limit| {
            let taken = self.tokens.used(now).saturating_add(self.held.get());
            u64::from(limit.get()).saturating_sub(taken)
        });
        Tokens::new(room.min(minute))
    }
}

/// What is left of a limit when so much is taken, if that is enough.
pub(super) const fn fits(limit: u64, taken: u64, enough: u64) -> Option<u64> {
    match limit.checked_sub(taken) {
        Some(free) if free >= enough => Some(free),
        _ => None,
    }
}

pub(super) fn affordable(nano_dollars: u64, price: TokenPrice) -> u64 {
    let tokens = (u128::from(nano_dollars) * 1000).checked_div(u128::from(price.pico_dollars()));
    tokens.map_or(u64::MAX, |tokens| u64::try_from(tokens).unwrap_or(u64::MAX))
}
