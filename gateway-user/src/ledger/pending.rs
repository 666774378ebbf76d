//! What was used and is not in the store yet.

use std::collections::HashMap;

use super::{Adjustment, Key, Sums, Trace};

/// What was used and is not in the store yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// What each counter showed when it was last looked at, by its serial number.
    seen: HashMap<u64, Seen>,
    rows: HashMap<RowId, Progress>,
}

/// What a counter showed.
#[derive(Debug, Default)]
struct Seen {
    sums: Sums,
    /// When it was looked at last: one that is gone is not looked at any more.
    look: u64,
}

/// What tells a row that may still grow from all others of this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RowId {
    hour: u64,
    key: Key,
    /// Each adjustment is a row of its own, and has its part here. Calls of an hour and key are one row: 0.
    adjustment: u64,
}

/// One of the counters that the ledger is made of.
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    /// Never another counter's in this process.
    pub(crate) serial: u64,
    pub(crate) key: &'a Key,
    /// All that was counted so far.
    pub(crate) sums: Sums,
}

/// A row of the store, which no other process writes.
///
/// The store is given the whole row each time: a write whose outcome is unknown can be done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The hour.
    pub(crate) hour: u64,
    /// What it is about.
    pub(crate) key: Key,
    /// Which part of what was used then: rows of one hour and key are added up.
    pub(crate) part: u64,
    /// All of that part.
    pub(crate) sums: Sums,
    /// Of an adjustment, when and why.
    pub(crate) trace: Option<Trace>,
}

/// How far a row has come, for as long as more may be added to it.
#[derive(Debug)]
struct Progress {
    part: u64,
    added: Sums,
    /// How much of that is in the store.
    written: Sums,
    trace: Option<Trace>,
}

impl Pending {
    /// Takes what was added to the counters, and gives it to an hour.
    ///
    /// `look` is greater each time, over restarts too where the store is the same: a row that is begun has its number, so
    /// that none before it is overwritten, neither of another process nor of an hour that the clock has come back to.
    pub(crate) fn collect<'a>(&mut self, look: u64, hour: u64, counters: impl Iterator<Item = Counted<'a>>) {
        let mut there = 0;
        for Counted { serial, key, sums } in counters {
            there += 1;
            let seen = self.seen.entry(serial).or_default();
            let added = sums.since(&seen.sums);
            *seen = Seen { sums, look };
            if added != Sums::default() {
                let id = RowId { hour, key: key.clone(), adjustment: 0 };
                let row = self.rows.entry(id).or_insert_with(|| Progress::new(look, None));
                row.added = row.added.plus(added);
            }
        }
        if self.seen.len() > there {
            self.seen.retain(|_, seen| seen.look == look);
        }
    }

    /// Takes adjustments, and gives them to an hour; `look` as for [`Self::collect`].
    pub(crate) fn adjust(&mut self, look: u64, hour: u64, adjustments: impl Iterator<Item = Adjustment>) {
        for (place, adjustment) in (1..).zip(adjustments) {
            let part = (look << PLACE_BITS) | place;
            let id = RowId { hour, key: adjustment.key(), adjustment: part };
            let mut row = Progress::new(part, Some(adjustment.trace()));
            row.added = adjustment.sums();
            self.rows.insert(id, row);
        }
    }

    /// What is to be written.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let unwritten = self.rows.iter().filter(|(_, row)| row.written != row.added);
        let row = |id: &RowId, row: &Progress| Row {
            hour: id.hour,
            key: id.key.clone(),
            part: row.part,
            sums: row.added,
            trace: row.trace.clone(),
        };
        unwritten.map(|(id, progress)| row(id, progress)).collect()
    }

    /// The store may have lost what it had: all that is remembered is to be written again.
    pub(crate) fn repeat(&mut self) {
        self.rows.values_mut().for_each(|row| row.written = Sums::default());
    }

    /// Drops the rows of hours before `hour`; gives what of them was not written.
    pub(crate) fn forget(&mut self, hour: u64) -> Sums {
        let mut lost = Sums::default();
        self.rows.retain(|id, row| {
            if id.hour < hour {
                lost = lost.plus(row.added.since(&row.written));
            }
            id.hour >= hour
        });
        lost
    }

    /// These rows are in the store. Those of hours before `hour` are not added to any more, and dropped once they are
    /// whole there.
    pub(crate) fn written(&mut self, rows: &[Row], hour: u64) {
        for Row { hour, key, part, sums, trace } in rows {
            let adjustment = if trace.is_some() { *part } else { 0 };
            // The id is what a map's entry is found by; there is no borrowed form of it.
            if let Some(row) = self.rows.get_mut(&RowId { hour: *hour, key: key.clone(), adjustment }) {
                row.written = *sums;
            }
        }
        self.rows.retain(|id, row| id.hour >= hour || row.written != row.added);
    }
}

impl Progress {
    fn new(part: u64, trace: Option<Trace>) -> Self {
        Self { part, added: Sums::default(), written: Sums::default(), trace }
    }
}

/// Of an adjustment's part, the bits that tell it from others of the same look.
const PLACE_BITS: u32 = 8;
/// How many adjustments one look can take.
pub(crate) const ADJUSTMENTS_AT_ONCE: usize = (1 << PLACE_BITS) - 1;

#[cfg(test)]
impl<'a> Counted<'a> {
    /// Counters as they are handed over; a place stands for a serial number.
    pub(crate) fn each(counters: &[(&'a Key, Sums)]) -> impl Iterator<Item = Self> {
        (0..).zip(counters.to_vec()).map(|(serial, (key, sums))| Counted { serial, key, sums })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Note, Signed};
    use super::*;
    use crate::names::{DeploymentName, ModelName, TenantName};
    use crate::units::{NanoDollars, Tokens};

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
        pending.collect(1, 7, Counted::each(&[(&acme, sums(2))]));
        pending.collect(2, 7, Counted::each(&[(&acme, sums(5)), (&widgets, sums(1))]));
        pending.collect(3, 8, Counted::each(&[(&acme, sums(6)), (&widgets, sums(1))]));
        let row = |hour, tenant: &str, calls| (hour, tenant.to_owned(), calls);
        assert_eq!(rows(&pending), [row(7, "acme", 5), row(7, "widgets", 1), row(8, "acme", 1)]);

        pending.written(&pending.rows(), 8);
        assert_eq!(rows(&pending), []);
        pending.collect(4, 8, Counted::each(&[(&acme, sums(8)), (&widgets, sums(1))]));
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
        pending.collect(1, 7, Counted::each(&[(&acme, sums(2))]));
        let writing = pending.rows();
        pending.collect(2, 7, Counted::each(&[(&acme, sums(3))]));
        pending.collect(3, 8, Counted::each(&[(&acme, sums(3))]));
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
            pending.collect(look, hour, Counted::each(&[(&acme, sums(look))]));
            let rows = pending.rows();
            pending.written(&rows, hour);
            store.extend(rows.into_iter().map(|row| ((row.hour, row.part), row.sums)));
        }
        assert_eq!(store, HashMap::from([((7, 1), sums(2)), ((900, 3), sums(1)), ((7, 4), sums(2))]));
    }

    #[test]
    fn a_counter_that_is_gone_takes_nothing_from_one_that_comes_after_it() {
        let acme = key("acme");
        let mut pending = Pending::default();
        let counter = |serial, calls| std::iter::once(Counted { serial, key: &acme, sums: sums(calls) });
        pending.collect(1, 7, counter(0, 5));
        pending.collect(2, 7, std::iter::empty());
        pending.collect(3, 7, counter(1, 2));
        assert_eq!(rows(&pending), [(7, "acme".to_owned(), 7)]);
    }

    #[test]
    fn each_adjustment_is_a_row_of_its_own_with_its_trace() {
        let note = |text: &str| Note::new(text).unwrap();
        let adjustment = |tokens, text: &str| Adjustment {
            tenant: TenantName::new("acme").unwrap(),
            at: 25_200,
            tokens: Signed::given_back(tokens),
            cost: Signed::charged(9),
            note: note(text),
        };
        let mut pending = Pending::default();
        pending.adjust(3, 7, [adjustment(5, "one"), adjustment(6, "two")].into_iter());
        pending.adjust(4, 7, [adjustment(7, "three")].into_iter());
        let mut rows = pending.rows();
        rows.sort_by_key(|row| row.part);
        let shown: Vec<_> =
            rows.iter().map(|row| (row.sums.given_back_tokens.get(), row.sums.charged_cost.get())).collect();
        assert_eq!(shown, [(5, 9), (6, 9), (7, 9)]);
        let traces: Vec<_> = rows.iter().filter_map(|row| row.trace.clone()).collect();
        assert_eq!(traces.iter().map(|trace| &*trace.note).collect::<Vec<_>>(), ["one", "two", "three"]);
        assert!(traces.iter().all(|trace| trace.at == 25_200));
        let keys: std::collections::HashSet<_> = rows.iter().map(|row| row.part).collect();
        assert_eq!(keys.len(), 3);

        pending.written(&rows[..2], 7);
        assert_eq!(pending.rows().len(), 1, "the third is not in the store yet");
        pending.written(&rows[2..], 8);
        assert_eq!(pending.rows(), []);
        pending.repeat();
        assert_eq!(pending.rows(), [], "rows of past hours are dropped once they are written");
    }
}
