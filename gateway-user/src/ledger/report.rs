//! The ledger's answers, and how they travel as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Column, Dimension, Key, Query, Sums, Trace};
use crate::reply::utc;

/// What was used, by what was to be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The first hour that counts, as a moment in UTC.
    pub since: String,
    /// The columns.
    pub by: Vec<Dimension>,
    /// Sorted by their cells.
    pub lines: Vec<Line>,
    /// What operators adjusted, oldest first.
    pub adjusted: Vec<Adjusted>,
}

/// One adjustment, as a report tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjusted {
    /// When, in UTC.
    pub at: String,
    /// Whose books.
    pub tenant: String,
    /// By how much.
    pub sums: Sums,
    /// Why.
    pub note: String,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What the line is about, by column; empty where nobody knows.
    pub cells: Vec<String>,
    /// What was used.
    pub sums: Sums,
}

/// Sums up the rows that a query is about.
#[derive(Debug)]
pub(crate) struct Summary<'q> {
    query: &'q Query,
    first_hour: u64,
    lines: BTreeMap<Vec<String>, Sums>,
    adjusted: Vec<(u64, Adjusted)>,
}

impl<'q> Summary<'q> {
    pub(crate) const fn new(query: &'q Query, utc_seconds: u64) -> Self {
        Self {
            query,
            first_hour: query.since.hour(utc_seconds),
            lines: BTreeMap::new(),
            adjusted: Vec::new(),
        }
    }

    /// Rows before this hour need not be added.
    pub(crate) const fn first_hour(&self) -> u64 {
        self.first_hour
    }

    /// Adds a row; `trace` where no call has made it.
    pub(crate) fn add(&mut self, hour: u64, key: &Key, sums: Sums, trace: Option<Trace>) {
        if self.query.tenant.as_ref().is_some_and(|tenant| *tenant != key.tenant) {
            return;
        }
        let cells = self.query.by.iter().map(|dimension| dimension.of(hour, key)).collect();
        let line = self.lines.entry(cells).or_default();
        *line = line.plus(sums);
        if let Some(Trace { at, note }) = trace {
            let tenant = key.tenant.to_string();
            self.adjusted.push((at, Adjusted { at: utc(at), tenant, sums, note: note.into() }));
        }
    }

    pub(crate) fn report(mut self) -> Report {
        self.adjusted.sort_by_key(|(at, _)| *at);
        Report {
            since: utc(self.first_hour * 3600),
            by: self.query.by.clone(),
            lines: self.lines.into_iter().map(|(cells, sums)| Line { cells, sums }).collect(),
            adjusted: self.adjusted.into_iter().map(|(_, adjusted)| adjusted).collect(),
        }
    }
}

impl Report {
    /// All lines together.
    #[must_use]
    pub fn total(&self) -> Sums {
        self.lines.iter().fold(Sums::default(), |total, line| total.plus(line.sums))
    }

    /// The report as JSON: `{"since", "by", "rows", "total", "adjustments"}`. Money is there in billionths of a dollar, and as a decimal
    /// text that has them all.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.lines.iter().map(|line| {
            let mut row = of_sums(&line.sums);
            for (dimension, cell) in self.by.iter().zip(&line.cells) {
                let cell = if cell.is_empty() { Value::Null } else { cell.as_str().into() };
                row.insert(dimension.as_str().to_owned(), cell);
            }
            Value::Object(row)
        });
        json!({
            "since": self.since,
            "by": self.by.iter().map(|dimension| dimension.as_str()).collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
            "total": of_sums(&self.total()),
            "adjustments": self.adjusted.iter().map(Adjusted::to_json).collect::<Vec<_>>(),
        })
    }

    /// Reads what [`Report::to_json`] wrote; nothing where something else did.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let by: Vec<Dimension> = value
            .get("by")?
            .as_array()?
            .iter()
            .map(|name| name.as_str()?.parse().ok())
            .collect::<Option<_>>()?;
        let line = |row: &Value| {
            let cell = |dimension: &Dimension| {
                let cell = row.get(dimension.as_str())?;
                Some(cell.as_str().unwrap_or_default().to_owned())
            };
            // Nothing that a gateway of any version has written is without it.
            row.get(name(Column::Calls))?.as_u64()?;
            Some(Line { cells: by.iter().map(cell).collect::<Option<_>>()?, sums: sums_of(row) })
        };
        let lines = value.get("rows")?.as_array()?.iter().map(line).collect::<Option<_>>()?;
        // A gateway of an earlier version knows of none.
        let adjusted = value.get("adjustments").and_then(Value::as_array).into_iter().flatten();
        let adjusted = adjusted.map(Adjusted::from_json).collect::<Option<_>>()?;
        Some(Self { since: value.get("since")?.as_str()?.to_owned(), by, lines, adjusted })
    }
}

impl Adjusted {
    fn to_json(&self) -> Value {
        let mut row = of_adjustments(&self.sums);
        for (key, text) in [("time", &self.at), ("tenant", &self.tenant), ("note", &self.note)] {
            row.insert(key.to_owned(), text.as_str().into());
        }
        Value::Object(row)
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        Some(Self { at: text("time")?, tenant: text("tenant")?, sums: sums_of(value), note: text("note")? })
    }
}

fn of_sums(sums: &Sums) -> Map<String, Value> {
    let mut row = of_adjustments(sums);
    for column in Column::ALL {
        row.insert(name(column).to_owned(), column.of(sums).into());
    }
    row.insert("tokens".to_owned(), sums.tokens().get().into());
    row.insert("dollars".to_owned(), sums.cost.decimal().into());
    row.insert("assumed_dollars".to_owned(), sums.assumed_cost.decimal().into());
    row
}

/// What operators gave back and charged, and what the two come to: below zero where more was given back.
fn of_adjustments(sums: &Sums) -> Map<String, Value> {
    let columns =
        [Column::GivenBackTokens, Column::GivenBackCost, Column::ChargedTokens, Column::ChargedCost];
    let mut row: Map<_, _> =
        columns.map(|column| (name(column).to_owned(), column.of(sums).into())).into_iter().collect();
    row.insert("adjusted_tokens".to_owned(), sums.adjusted_tokens().into());
    row.insert("adjusted_dollars".to_owned(), sums.adjusted_dollars().into());
    row
}

/// Reads every column. One that is missing is zero: a gateway of an earlier version does not know it.
fn sums_of(row: &Value) -> Sums {
    let amount = |column| Some((column, row.get(name(column))?.as_u64()?));
    Column::ALL.into_iter().filter_map(amount).collect()
}

/// A column's key. Amounts of money are in billionths of a dollar.
const fn name(column: Column) -> &'static str {
    match column {
        Column::Calls => "calls",
        Column::Prompt => "prompt_tokens",
        Column::CachedPrompt => "cached_prompt_tokens",
        Column::Completion => "completion_tokens",
        Column::Reasoning => "reasoning_tokens",
        Column::Cost => "nano_dollars",
        Column::AssumedTokens => "assumed_tokens",
        Column::AssumedCost => "assumed_nano_dollars",
        Column::GivenBackTokens => "given_back_tokens",
        Column::GivenBackCost => "given_back_nano_dollars",
        Column::ChargedTokens => "charged_tokens",
        Column::ChargedCost => "charged_nano_dollars",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::names::{DeploymentName, ModelName, TenantName};
    use crate::units::{NanoDollars, Tokens};

    fn key(tenant: &str, deployment: &str, kind: Kind) -> Key {
        Key {
            tenant: TenantName::new(tenant).unwrap(),
            deployment: DeploymentName::new(deployment).ok(),
            model: ModelName::new("gpt-4o-mini").ok(),
            kind,
        }
    }

    fn sums(calls: u64) -> Sums {
        let tokens = Tokens::new(calls * 7);
        Sums {
            calls,
            prompt: tokens,
            cached_prompt: Tokens::new(1),
            completion: tokens,
            reasoning: Tokens::new(2),
            cost: NanoDollars::new(1_000_000_001),
            assumed_tokens: Tokens::new(3),
            assumed_cost: NanoDollars::new(500_000_000),
            ..Sums::default()
        }
    }

    fn given_back(tokens: u64) -> Sums {
        Sums {
            given_back_tokens: Tokens::new(tokens),
            given_back_cost: NanoDollars::new(1_250_000_000),
            charged_tokens: Tokens::new(1),
            ..Sums::default()
        }
    }

    fn report(query: &str) -> Report {
        let query = Query::parse(query).unwrap();
        let mut summary = Summary::new(&query, 1_709_212_455);
        for (hour, key, calls) in [
            (474_778, key("widgets", "chat", Kind::Single), 1),
            (474_779, key("acme", "chat", Kind::Stream), 2),
            (474_779, key("acme", "chat", Kind::Single), 3),
            (474_779, Key { deployment: None, model: None, ..key("acme", "x", Kind::Recovered) }, 4),
        ] {
            summary.add(hour, &key, sums(calls), None);
        }
        let adjusted = Key { deployment: None, model: None, ..key("acme", "x", Kind::Adjusted) };
        for (at, tokens, note) in [(1_709_212_454, 7, "later"), (1_709_212_453, 5, "sooner")] {
            let trace = Trace { at, note: note.into() };
            summary.add(474_779, &adjusted, given_back(tokens), Some(trace));
        }
        summary.report()
    }

    #[test]
    fn rows_are_summed_by_what_is_told_apart() {
        let calls = |query: &str| -> Vec<_> {
            let report = report(query);
            report.lines.into_iter().map(|line| (line.cells.join("/"), line.sums.calls)).collect()
        };
        let of = |expected: &[(&str, u64)]| -> Vec<_> {
            expected.iter().map(|(cells, calls)| ((*cells).to_owned(), *calls)).collect()
        };
        assert_eq!(calls("by=tenant"), of(&[("acme", 9), ("widgets", 1)]));
        assert_eq!(calls("by=deployment,tenant"), of(&[("/acme", 4), ("chat/acme", 5), ("chat/widgets", 1)]));
        assert_eq!(calls("by=hour&tenant=widgets"), of(&[("2024-02-29T10:00:00Z", 1)]));
        assert_eq!(calls("by=day"), of(&[("2024-02-29", 10)]));
        assert_eq!(calls("by="), of(&[("", 10)]));
    }

    #[test]
    fn a_report_survives_its_json() {
        let report = report("by=tenant,deployment,kind,hour");
        let json = report.to_json();
        assert_eq!(json["rows"][0]["deployment"], Value::Null);
        assert_eq!(json["total"]["dollars"], "4.000000004");
        assert_eq!(
            (&json["total"]["assumed_tokens"], &json["total"]["assumed_dollars"]),
            (&12.into(), &"2.000000000".into())
        );
        assert_eq!(
            (&json["total"]["adjusted_tokens"], &json["total"]["adjusted_dollars"]),
            (&(-10).into(), &"-2.500000000".into())
        );
        let notes: Vec<_> = json["adjustments"].as_array().unwrap().iter().map(|row| &row["note"]).collect();
        assert_eq!(notes, ["sooner", "later"]);
        assert_eq!(Report::from_json(&json), Some(report));
        assert_eq!(Report::from_json(&json!({"error": "x"})), None);
    }

    #[test]
    fn a_report_of_an_earlier_version_is_read_with_nothing_assumed() {
        let earlier = json!({
            "since": "2024-02-29T00:00:00Z",
            "by": ["tenant"],
            "rows": [{"tenant": "acme", "calls": 2, "prompt_tokens": 3, "cached_prompt_tokens": 1,
                "completion_tokens": 4, "reasoning_tokens": 0, "nano_dollars": 9}],
        });
        let report = Report::from_json(&earlier).unwrap();
        let total = report.total();
        assert_eq!((total.calls, total.tokens(), total.assumed_tokens), (2, Tokens::new(7), Tokens::ZERO));
        assert_eq!(report.adjusted, []);
    }
}
