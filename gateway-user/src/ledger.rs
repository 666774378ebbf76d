//! Who has used what: calls, tokens and money by hour, tenant, deployment, model and kind of answer.
//!
//! A call adds to the counters that Prometheus reads too ([`CostSeries`](crate::metrics::CostSeries)), so that the two
//! cannot disagree. A [`Pending`] takes what was added since it last looked and gives it to an hour; the store keeps it.

mod query;
mod report;

use std::collections::HashMap;

use crate::limits::OpenUse;
use crate::meter::Usage;
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

/// One call as it is booked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    /// Its tokens.
    pub usage: Usage,
    /// What they cost.
    pub cost: NanoDollars,
    /// The part of both that nobody saw.
    pub assumed: Assumed,
}

/// The part of a booked call that nobody saw; the call's own figures contain it.
///
/// Neither did upstream report these tokens nor did they pass through the gateway: the call timed out, its caller hung up
/// before the answer, or the gateway was killed. The default is a call of which everything was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Assumed {
    /// Prompt and output tokens.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoDollars,
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
    rows: HashMap<(u64, Key), Progress>,
}

/// A row of the store, which no other process writes.
///
/// The store is given the whole row each time: a write whose outcome is unknown can be done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The hour.
    pub(crate) hour: u64,
    /// What it is about.
    pub(crate) key: Key,
    /// Which part of what was used then: rows of one hour and key are added up.
    pub(crate) part: u64,
    /// All of that part.
    pub(crate) sums: Sums,
}

/// How far a row has come, for as long as more may be added to it.
#[derive(Debug)]
struct Progress {
    part: u64,
    added: Sums,
    /// How much of that is in the store.
    written: Sums,
}

impl Pending {
    /// Takes what was added to the counters, and gives it to an hour. The counters must come in the same order each time,
    /// new ones last.
    ///
    /// `look` is greater each time, over restarts too where the store is the same: a row that is begun has its number, so
    /// that none before it is overwritten, neither of another process nor of an hour that the clock has come back to.
    pub(crate) fn collect<'a>(
        &mut self,
        look: u64,
        hour: u64,
        counters: impl Iterator<Item = (&'a Key, Sums)>,
    ) {
        for (place, (key, now)) in counters.enumerate() {
            if place == self.seen.len() {
                self.seen.push(Sums::default());
            }
            let added = now.since(self.seen[place]);
            if added != Sums::default() {
                self.seen[place] = now;
                let row = self.rows.entry((hour, key.clone())).or_insert_with(|| Progress::new(look));
                row.added = row.added.plus(added);
            }
        }
    }

    /// What is to be written.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let unwritten = self.rows.iter().filter(|(_, row)| row.written != row.added);
        let row = |(hour, key): &(u64, Key), row: &Progress| Row {
            hour: *hour,
            key: key.clone(),
            part: row.part,
            sums: row.added,
        };
        unwritten.map(|(of, progress)| row(of, progress)).collect()
    }

    /// The store may have lost what it had: all that is remembered is to be written again.
    pub(crate) fn repeat(&mut self) {
        self.rows.values_mut().for_each(|row| row.written = Sums::default());
    }

    /// Drops the rows of hours before `hour`; gives what of them was not written.
    pub(crate) fn forget(&mut self, hour: u64) -> Sums {
        let mut lost = Sums::default();
        self.rows.retain(|(of, _), row| {
            if *of < hour {
                lost = lost.plus(row.added.since(row.written));
            }
            *of >= hour
        });
        lost
    }

    /// These rows are in the store. Those of hours before `hour` are not added to any more, and dropped once they are
    /// whole there.
    pub(crate) fn written(&mut self, rows: &[Row], hour: u64) {
        for Row { hour, key, sums, .. } in rows {
            // The key is what a map's entry is found by; there is no borrowed form of the pair.
            if let Some(row) = self.rows.get_mut(&(*hour, key.clone())) {
                row.written = *sums;
            }
        }
        self.rows.retain(|(of, _), row| *of >= hour || row.written != row.added);
    }
}

impl Progress {
    fn new(part: u64) -> Self {
        Self { part, added: Sums::default(), written: Sums::default() }
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

    /// The hour, the tenant and the calls of each row.
    fn rows(pending: &Pending) -> Vec<(u64, String, u64)> {
        let mut rows: Vec<_> = pending
            .rows()
            .into_iter()
            .map(|row| (row.hour, row.key.tenant.as_str().to_owned(), row.sums.calls))
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn each_addition_is_taken_once_and_stays_until_it_is_written() {
        let (acme, widgets) = (key("acme"), key("widgets"));
        let mut pending = Pending::default();
        pending.collect(1, 7, [(&acme, sums(2))].into_iter());
        pending.collect(2, 7, [(&acme, sums(5)), (&widgets, sums(1))].into_iter());
        pending.collect(3, 8, [(&acme, sums(6)), (&widgets, sums(1))].into_iter());
        let row = |hour, tenant: &str, calls| (hour, tenant.to_owned(), calls);
        assert_eq!(rows(&pending), [row(7, "acme", 5), row(7, "widgets", 1), row(8, "acme", 1)]);

        pending.written(&pending.rows(), 8);
        assert_eq!(rows(&pending), []);
        pending.collect(4, 8, [(&acme, sums(8)), (&widgets, sums(1))].into_iter());
        assert_eq!(
            rows(&pending),
            [row(8, "acme", 3)],
            "the whole row of the running hour, none of past ones"
        );
    }

    #[test]
    fn what_is_added_while_a_row_is_being_written_is_written_after_it() {
        let acme = key("acme");
        let mut pending = Pending::default();
        pending.collect(1, 7, [(&acme, sums(2))].into_iter());
        let writing = pending.rows();
        pending.collect(2, 7, [(&acme, sums(3))].into_iter());
        pending.collect(3, 8, [(&acme, sums(3))].into_iter());
        pending.written(&writing, 8);
        let row = |hour, tenant: &str, calls| (hour, tenant.to_owned(), calls);
        assert_eq!(rows(&pending), [row(7, "acme", 3)]);
        pending.written(&pending.rows(), 8);
        assert_eq!(pending.forget(9), Sums::default());
    }

    #[test]
    fn an_hour_that_the_clock_comes_back_to_has_another_row() {
        let acme = key("acme");
        let mut pending = Pending::default();
        let mut store: HashMap<(u64, u64), Sums> = HashMap::new();
        for (look, hour) in [(1, 7), (2, 7), (3, 900), (4, 7), (5, 7)] {
            pending.collect(look, hour, [(&acme, sums(look))].into_iter());
            let rows = pending.rows();
            pending.written(&rows, hour);
            store.extend(rows.into_iter().map(|row| ((row.hour, row.part), row.sums)));
        }
        assert_eq!(store, HashMap::from([((7, 1), sums(2)), ((900, 3), sums(1)), ((7, 4), sums(2))]));
    }
}
