//! The figures, their targets, and the result as a table or as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::proxy::Side;

/// One thing that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    CallsPerSecond,
    CpuPerCall,
    LatencyP50,
    LatencyP99,
    ChunkDelayP50,
    ChunkDelayP99,
    ConnectionsPerSecond,
    CpuPerConnection,
    IdleMemory,
    MemoryPerStream,
    AgentCallsPerSecond,
    CpuPerAgentCall,
}

/// What the gateway's figure may be, as a multiple of nginx's and in its own unit.
#[derive(Debug, Clone, Copy)]
enum Target {
    Least(f64),
    Most(f64),
    MostAndBelow(f64, f64),
}

impl Figure {
    const fn label(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "(a) small calls, 1/s",
            Self::CpuPerCall => "(a) CPU for a call, µs",
            Self::LatencyP50 => "(b) added latency p50, µs",
            Self::LatencyP99 => "(b) added latency p99, µs",
            Self::ChunkDelayP50 => "(c) added chunk delay p50, µs",
            Self::ChunkDelayP99 => "(c) added chunk delay p99, µs",
            Self::ConnectionsPerSecond => "(d) new TLS connections, 1/s",
            Self::CpuPerConnection => "(d) CPU for a connection, µs",
            Self::IdleMemory => "(e) memory idle, MiB",
            Self::MemoryPerStream => "(e) memory for a stream, KiB",
            Self::AgentCallsPerSecond => "(f) agents' calls of 157 KB, 1/s",
            Self::CpuPerAgentCall => "(f) CPU for an agent's call, µs",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls_per_second",
            Self::CpuPerCall => "cpu_per_call_us",
            Self::LatencyP50 => "added_latency_p50_us",
            Self::LatencyP99 => "added_latency_p99_us",
            Self::ChunkDelayP50 => "added_chunk_delay_p50_us",
            Self::ChunkDelayP99 => "added_chunk_delay_p99_us",
            Self::ConnectionsPerSecond => "connections_per_second",
            Self::CpuPerConnection => "cpu_per_connection_us",
            Self::IdleMemory => "idle_mib",
            Self::MemoryPerStream => "stream_kib",
            Self::AgentCallsPerSecond => "agent_calls_per_second",
            Self::CpuPerAgentCall => "cpu_per_agent_call_us",
        }
    }

    const fn target(self) -> Option<Target> {
        match self {
            Self::CallsPerSecond => Some(Target::Least(0.5)),
            Self::LatencyP50 => Some(Target::Most(1.2)),
            Self::ChunkDelayP99 => Some(Target::MostAndBelow(1.3, 1000.0)),
            Self::ConnectionsPerSecond => Some(Target::Least(1.5)),
            Self::MemoryPerStream => Some(Target::Most(1.0)),
            Self::AgentCallsPerSecond => Some(Target::Least(0.75)),
            Self::CpuPerCall
            | Self::CpuPerAgentCall
            | Self::LatencyP99
            | Self::ChunkDelayP50
            | Self::CpuPerConnection
            | Self::IdleMemory => None,
        }
    }
}

impl Target {
    fn met(self, value: f64, ratio: f64) -> bool {
        match self {
            Self::Least(bound) => ratio >= bound,
            Self::Most(bound) => ratio <= bound,
            Self::MostAndBelow(bound, limit) => ratio <= bound && value < limit,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Least(bound) => write!(formatter, "≥ {bound:.2}"),
            Self::Most(bound) => write!(formatter, "≤ {bound:.2}"),
            Self::MostAndBelow(bound, limit) => write!(formatter, "≤ {bound:.2}, < {limit:.0} µs"),
        }
    }
}

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The upstream without a proxy; what is added is over this.
    Direct,
    /// One of the proxies.
    Proxy(Side),
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    rounds: u32,
    machine: Value,
    rows: BTreeMap<Figure, Row>,
    notes: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Row {
    direct: Samples,
    nginx: Samples,
    gateway: Samples,
}

impl Report {
    pub(super) const fn new(rounds: u32, machine: Value) -> Self {
        Self { rounds, machine, rows: BTreeMap::new(), notes: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, figure: Figure, column: Column, value: f64) {
        let row = self.rows.entry(figure).or_default();
        let samples = match column {
            Column::Direct => &mut row.direct,
            Column::Proxy(Side::Nginx) => &mut row.nginx,
            Column::Proxy(Side::Gateway) => &mut row.gateway,
        };
        samples.0.push(value);
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.insert(note);
    }

    /// Medians side by side, aligned, with the spread of the rounds.
    pub(super) fn table(&self) -> String {
        let mut cells = vec![HEADINGS.map(str::to_owned)];
        cells.extend(self.rows.iter().map(|(figure, row)| row.cells(*figure)));
        let mut text =
            format!("medians of {} rounds; in brackets the lowest and the highest\n\n", self.rounds);
        for line in &cells {
            for (column, cell) in line.iter().enumerate() {
                let width =
                    cells.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
                let gap = " ".repeat(width.unwrap_or(0).saturating_sub(cell.chars().count()));
                let (before, after) = if column == 0 { ("", gap.as_str()) } else { (gap.as_str(), "") };
                text.push_str(before);
                text.push_str(cell);
                text.push_str(after);
                text.push_str("  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str("\nnote: ");
            text.push_str(note);
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text
    }

    /// The same for programs, every round included.
    pub(super) fn json(&self) -> Value {
        let Self { rounds, machine, rows, notes } = self;
        let figures: Vec<_> = rows.iter().map(|(figure, row)| row.json(*figure)).collect();
        json!({ "rounds": rounds, "machine": machine, "figures": figures, "notes": notes })
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.gateway.median()? / self.nginx.median()?)
    }

    fn met(&self, figure: Figure) -> Option<bool> {
        Some(figure.target()?.met(self.gateway.median()?, self.ratio()?))
    }

    fn cells(&self, figure: Figure) -> [String; 7] {
        let met = self.met(figure).map_or("", |met| if met { "met" } else { "MISSED" });
        [
            figure.label().to_owned(),
            self.direct.cell(),
            self.nginx.cell(),
            self.gateway.cell(),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            figure.target().map_or_else(String::new, |target| target.to_string()),
            met.to_owned(),
        ]
    }

    fn json(&self, figure: Figure) -> Value {
        json!({
            "figure": figure.key(),
            "label": figure.label(),
            "direct": self.direct.json(),
            "nginx": self.nginx.json(),
            "gateway": self.gateway.json(),
            "ratio": self.ratio(),
            "target": figure.target().map(|target| target.to_string()),
            "met": self.met(figure),
        })
    }
}

/// One value a round.
#[derive(Debug, Default)]
struct Samples(Vec<f64>);

impl Samples {
    /// The middle value; the mean of the two in the middle when their number is even.
    fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let upper = sorted.get(sorted.len() / 2)?;
        let lower = sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(f64::midpoint(*lower, *upper))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn cell(&self) -> String {
        let sorted = self.sorted();
        let (Some(median), Some(low), Some(high)) = (self.median(), sorted.first(), sorted.last()) else {
            return String::new();
        };
        let median = rounded(median);
        if sorted.len() > 1 { format!("{median} [{} {}]", rounded(*low), rounded(*high)) } else { median }
    }

    fn json(&self) -> Value {
        self.median().map_or(Value::Null, |median| json!({ "median": median, "rounds": self.0 }))
    }
}

/// With as many decimals as mean something.
fn rounded(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

const HEADINGS: [&str; 7] = ["", "direct", "nginx", "gateway", "ratio", "target", ""];

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figure: Figure, nginx: &[f64], gateway: &[f64]) -> Report {
        let mut report = Report::new(3, Value::Null);
        nginx.iter().for_each(|value| report.add(figure, Column::Proxy(Side::Nginx), *value));
        gateway.iter().for_each(|value| report.add(figure, Column::Proxy(Side::Gateway), *value));
        report
    }

    #[test]
    fn medians_are_compared_not_means() {
        let report = report(Figure::CallsPerSecond, &[100.0, 40.0, 9000.0], &[60.0, 50.0, 1.0]);
        let row = &report.rows[&Figure::CallsPerSecond];
        assert_eq!((row.ratio(), row.met(Figure::CallsPerSecond)), (Some(0.5), Some(true)));
    }

    #[test]
    fn a_target_may_have_a_limit_of_its_own() {
        let report = report(Figure::ChunkDelayP99, &[2000.0], &[1500.0]);
        assert_eq!(report.rows[&Figure::ChunkDelayP99].met(Figure::ChunkDelayP99), Some(false));
        assert!(report.table().contains("MISSED"));
    }

    #[test]
    fn one_side_alone_has_no_ratio() {
        let report = report(Figure::MemoryPerStream, &[39.5], &[]);
        assert_eq!(report.json()["figures"][0]["ratio"], Value::Null);
        assert!(!report.table().contains("MISSED"));
    }
}
