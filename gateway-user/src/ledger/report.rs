//! The ledger's answers, and how they travel as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Dimension, Key, Query, Sums};
use crate::reply::utc;
use crate::units::{NanoDollars, Tokens};

/// What was used, by what was to be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The first hour that counts, as a moment in UTC.
    pub since: String,
    /// The columns.
    pub by: Vec<Dimension>,
    /// Sorted by their cells.
    pub lines: Vec<Line>,
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
}

impl<'q> Summary<'q> {
    pub(crate) const fn new(query: &'q Query, utc_seconds: u64) -> Self {
        Self { query, first_hour: query.since.hour(utc_seconds), lines: BTreeMap::new() }
    }

    /// Rows before this hour need not be added.
    pub(crate) const fn first_hour(&self) -> u64 {
        self.first_hour
    }

    pub(crate) fn add(&mut self, hour: u64, key: &Key, sums: Sums) {
        if self.query.tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant) {
            let cells = self.query.by.iter().map(|dimension| dimension.of(hour, key)).collect();
            let line = self.lines.entry(cells).or_default();
            *line = line.plus(sums);
        }
    }

    pub(crate) fn report(self) -> Report {
        Report {
            since: utc(self.first_hour * 3600),
            by: self.query.by.clone(),
            lines: self.lines.into_iter().map(|(cells, sums)| Line { cells, sums }).collect(),
        }
    }
}

impl Report {
    /// All lines together.
    #[must_use]
    pub fn total(&self) -> Sums {
        self.lines.iter().fold(Sums::default(), |total, line| total.plus(line.sums))
    }

    /// The report as JSON: `{"since", "by", "rows", "total"}`. Money is there in billionths of a dollar, and as a decimal
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
            Some(Line { cells: by.iter().map(cell).collect::<Option<_>>()?, sums: sums_of(row)? })
        };
        let lines = value.get("rows")?.as_array()?.iter().map(line).collect::<Option<_>>()?;
        Some(Self { since: value.get("since")?.as_str()?.to_owned(), by, lines })
    }
}

fn of_sums(sums: &Sums) -> Map<String, Value> {
    let Sums { calls, prompt, cached_prompt, completion, reasoning, cost } = sums;
    [
        ("calls", Value::from(*calls)),
        ("prompt_tokens", prompt.get().into()),
        ("cached_prompt_tokens", cached_prompt.get().into()),
        ("completion_tokens", completion.get().into()),
        ("reasoning_tokens", reasoning.get().into()),
        ("tokens", sums.tokens().get().into()),
        ("nano_dollars", cost.get().into()),
        ("dollars", cost.decimal().into()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn sums_of(row: &Value) -> Option<Sums> {
    let number = |key: &str| row.get(key)?.as_u64();
    Some(Sums {
        calls: number("calls")?,
        prompt: Tokens::new(number("prompt_tokens")?),
        cached_prompt: Tokens::new(number("cached_prompt_tokens")?),
        completion: Tokens::new(number("completion_tokens")?),
        reasoning: Tokens::new(number("reasoning_tokens")?),
        cost: NanoDollars::new(number("nano_dollars")?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::names::{DeploymentName, ModelName, TenantName};

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
            summary.add(hour, &key, sums(calls));
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
        assert_eq!(Report::from_json(&json), Some(report));
        assert_eq!(Report::from_json(&json!({"error": "x"})), None);
    }
}
