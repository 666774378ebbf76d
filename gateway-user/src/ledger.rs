//! Who has used what: calls, tokens and money by hour, tenant, deployment, model and kind of answer.
//!
//! A call adds to the counters that Prometheus reads too ([`CostSeries`](crate::metrics::CostSeries)), so that the two
//! cannot disagree. A [`Pending`] takes what was added since it last looked and gives it to an hour; the store keeps it.

mod query;
mod report;

use std::collections::HashMap;

use crate::limits::OpenUse;
use crate::names::{DeploymentName, ModelName, TenantName};
use crate::units::{NanoDollars, Tokens};

pub use query::{Dimension, Query, QueryError, Since};
pub(crate) use report::Summary;
pub use report::{Line, Report};

/// How long what was used is remembered.
pub const RETENTION_HOURS: u64 = 400 * 24;

/// What a figure of the ledger is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Who pays.
    pub tenant: TenantName,
    /// What was called; `None` for [`Kind::Recovered`].
    pub deployment: Option<DeploymentName>,
    /// The model behind it; `None` for [`Kind::Recovered`].
    pub model: Option<ModelName>,
    /// How it was answered.
    pub kind: Kind,
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// In one piece.
    Single,
    /// As a stream.
    Stream,
    /// Nobody knows: the gateway was killed while the call was open, and all that it held counts as used.
    Recovered,
}

impl Kind {
    /// Every kind; a kind's place here is its number in the database.
    pub const ALL: [Self; 3] = [Self::Single, Self::Stream, Self::Recovered];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Stream => "stream",
            Self::Recovered => "recovered",
        }
    }
}

/// What calls have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that used anything.
    pub calls: u64,
    /// Their prompts, cached parts included.
    pub prompt: Tokens,
    /// The parts of the prompts that upstream read from its cache.
    pub cached_prompt: Tokens,
    /// Their answers, reasoning included.
    pub completion: Tokens,
    /// The parts of the answers that were reasoning.
    pub reasoning: Tokens,
    /// What all of it cost.
    pub cost: NanoDollars,
}

impl Sums {
    /// Prompts and answers together.
    #[must_use]
    pub const fn tokens(&self) -> Tokens {
        self.prompt.saturating_add(self.completion)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            prompt: self.prompt.saturating_add(other.prompt),
            cached_prompt: self.cached_prompt.saturating_add(other.cached_prompt),
            completion: self.completion.saturating_add(other.completion),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    /// What has been added since it was `earlier`.
    const fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            prompt: self.prompt.saturating_sub(earlier.prompt),
            cached_prompt: self.cached_prompt.saturating_sub(earlier.cached_prompt),
            completion: self.completion.saturating_sub(earlier.completion),
            reasoning: self.reasoning.saturating_sub(earlier.reasoning),
            cost: self.cost.saturating_sub(earlier.cost),
        }
    }
}

impl From<&OpenUse> for Sums {
    /// What calls are taken to have used that were open when the gateway was killed.
    fn from(open: &OpenUse) -> Self {
        let most = open.most();
        Self {
            calls: open.calls,
            prompt: open.prompt,
            completion: most.output,
            cost: most.cost,
            ..Self::default()
        }
    }
}

/// The number of the hour that holds a moment, counted from 1970-01-01 UTC.
#[must_use]
pub const fn hour_of(utc_seconds: u64) -> u64 {
    utc_seconds / 3600
}

/// What was used and is not in the store yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// What each counter showed when it was last looked at, by its place among the counters.
    seen: Vec<Sums>,
    rows: HashMap<(u64, Key), Row>,
}

/// One row of the store, for as long as more may be added to it.
///
/// The store is given the whole row each time: a write whose outcome is unknown can be done again.
#[derive(Debug, Default)]
pub struct Row {
    /// What the store had before this process; `None` until that was read.
    pub(crate) before: Option<Sums>,
    /// What this process has added.
    pub(crate) added: Sums,
    pub(crate) written: bool,
}

impl Pending {
    /// Takes what was added to the counters, and gives it to an hour. The counters must come in the same order each time,
    /// new ones last.
    pub(crate) fn collect<'a>(&mut self, hour: u64, counters: impl Iterator<Item = (&'a Key, Sums)>) {
        for (place, (key, now)) in counters.enumerate() {
            if place == self.seen.len() {
                self.seen.push(Sums::default());
            }
            let added = now.since(self.seen[place]);
            if added != Sums::default() {
                self.seen[place] = now;
                let row = self.rows.entry((hour, key.clone())).or_default();
                row.added = row.added.plus(added);
                row.written = false;
            }
        }
    }

    /// Whether there is anything to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.values().all(|row| row.written)
    }

    /// What is to be written: each row's place, and the row.
    pub(crate) fn rows(&mut self) -> impl Iterator<Item = (u64, &Key, &mut Row)> {
        self.rows.iter_mut().filter(|(_, row)| !row.written).map(|((hour, key), row)| (*hour, key, row))
    }

    /// The store may have lost what it had: all that is remembered is to be written again.
    pub(crate) fn repeat(&mut self) {
        self.rows.values_mut().for_each(|row| row.written = false);
    }

    /// Drops the rows of hours before `hour`; gives what of them was not written.
    pub(crate) fn forget(&mut self, hour: u64) -> Sums {
        let mut lost = Sums::default();
        self.rows.retain(|(of, _), row| {
            if *of < hour && !row.written {
                lost = lost.plus(row.added);
            }
            *of >= hour
        });
        lost
    }

    /// All of it is in the store. Rows of hours before `hour` are not added to any more.
    pub(crate) fn written(&mut self, hour: u64) {
        self.rows.retain(|(of, _), row| {
            row.written = true;
            *of >= hour
        });
    }
}

impl Row {
    /// The row as it is to be written.
    pub(crate) fn sums(&self) -> Sums {
        self.before.unwrap_or_default().plus(self.added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str) -> Key {
        Key {
            tenant: TenantName::new(tenant).unwrap(),
            deployment: DeploymentName::new("chat").ok(),
            model: ModelName::new("gpt-4o-mini").ok(),
            kind: Kind::Single,
        }
    }

    fn sums(calls: u64) -> Sums {
        Sums { calls, prompt: Tokens::new(calls * 10), cost: NanoDollars::new(calls * 3), ..Sums::default() }
    }

    #[test]
    fn each_addition_is_taken_once_and_stays_until_it_is_written() {
        let (acme, widgets) = (key("acme"), key("widgets"));
        let mut pending = Pending::default();
        pending.collect(7, [(&acme, sums(2))].into_iter());
        pending.collect(7, [(&acme, sums(5)), (&widgets, sums(1))].into_iter());
        pending.collect(8, [(&acme, sums(6)), (&widgets, sums(1))].into_iter());
        let mut rows: Vec<_> =
            pending.rows().map(|(hour, key, row)| (hour, key.clone(), row.sums().calls)).collect();
        rows.sort();
        assert_eq!(rows, [(7, acme.clone(), 5), (7, widgets.clone(), 1), (8, acme.clone(), 1)]);

        pending.written(8);
        assert!(pending.is_empty());
        pending.collect(8, [(&acme, sums(8)), (&widgets, sums(1))].into_iter());
        let rows: Vec<_> =
            pending.rows().map(|(hour, key, row)| (hour, key.clone(), row.sums().calls)).collect();
        assert_eq!(rows, [(8, acme, 3)], "the whole row of the running hour, and nothing of past ones");
    }
}
