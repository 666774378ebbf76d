//! What one call holds of its tenant's account, given back on every way out.

use std::sync::Arc;

use super::Now;
use super::account::{Account, Held, Output, Used};
use super::terms::{Ask, Grant, Limits, Refused};
use crate::units::{Prices, Tokens};

/// A call that was let in. Dropped unsettled, it frees what it held and books nothing more.
#[derive(Debug)]
pub struct Admission {
    account: Arc<Account>,
    prices: Prices,
    held: Held,
}

impl Admission {
    /// Lets a call in.
    ///
    /// # Errors
    /// [`Refused`] names the limit that stands in the way.
    pub fn admit(
        account: &Arc<Account>,
        limits: &Limits,
        ask: &Ask,
        now: Now,
    ) -> Result<(Self, Grant), Refused> {
        let (held, grant) = account.admit(limits, ask, now)?;
        Ok((Self { account: Arc::clone(account), prices: ask.prices, held }, grant))
    }

    /// Lets a call in whose prompt is known by its bytes only; nothing where its tokens have to be counted first.
    ///
    /// # Errors
    /// [`Refused`] names a limit that no prompt is short enough for.
    pub fn admit_by_bytes(
        account: &Arc<Account>,
        limits: &Limits,
        ask: &Ask,
        now: Now,
    ) -> Result<Option<(Self, Grant)>, Refused> {
        let admitted = account.admit_by_bytes(limits, ask, now)?;
        Ok(admitted
            .map(|(held, grant)| (Self { account: Arc::clone(account), prices: ask.prices, held }, grant)))
    }

    /// The most output tokens that the call may produce as things stand.
    #[must_use]
    pub fn output_allowed(&self) -> Tokens {
        self.held.output_allowed()
    }

    /// What the call is taken to have written where nobody can tell.
    #[must_use]
    pub fn output_assumed(&self) -> Tokens {
        self.held.output_assumed()
    }

    /// Whose account it is.
    #[must_use]
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What the call's tokens cost.
    #[must_use]
    pub const fn prices(&self) -> &Prices {
        &self.prices
    }

    /// Holds `more` output tokens.
    ///
    /// # Errors
    /// [`Refused`] names the limit that has no room for them.
    pub fn grow(&mut self, limits: &Limits, more: Tokens, now: Now) -> Result<(), Refused> {
        self.account.grow(limits, &mut self.held, more, &self.prices, now)
    }

    /// Gives back what the prompt was held for beyond its closer estimate.
    pub fn shrink_prompt(&mut self, estimate: Tokens) {
        self.account.shrink_prompt(&mut self.held, estimate, &self.prices);
    }

    /// Books output as it is seen.
    pub fn spend(&mut self, output: Tokens, now: Now) {
        self.account.spend(&mut self.held, output, &self.prices, now);
    }

    /// Books what the call used, and ends it.
    pub fn settle(self, used: Used, now: Now) {
        self.settle_with(used, Output::Known, now);
    }

    /// Books what the call used, its output perhaps assumed, and ends it.
    pub fn settle_with(mut self, used: Used, output: Output, now: Now) {
        self.account.settle(&std::mem::take(&mut self.held), used, output, now);
    }

    /// Books what the call used, its output perhaps assumed. What is left of it keeps the call's slot until it is dropped: its
    /// answer is still to be delivered.
    #[must_use]
    pub fn settle_keeping_slot(mut self, used: Used, output: Output, now: Now) -> Self {
        let slot = self.held.take_slot();
        self.account.settle(&std::mem::replace(&mut self.held, slot), used, output, now);
        self
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.account.release(&self.held);
    }
}
