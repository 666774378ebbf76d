//! `cargo xtask bench neighbour`: what an honest tenant gets beside attackers, attack by attack. Fails when an honest call
//! failed or took long, or when the gateway took too much memory.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use super::{Format, measured};

/// Options of `cargo xtask bench neighbour`.
#[derive(Debug, Args)]
pub(super) struct NeighbourArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// A few seconds of each attack: shows that it works
    #[arg(long)]
    quick: bool,
    /// Only these attacks, by name, besides what is measured without one
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// With the kernel programs, attached to the loopback interface; takes root
    #[arg(long)]
    kernel: bool,
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
pub(super) fn run(args: &NeighbourArgs) -> Result<()> {
    let mut arguments = Vec::new();
    if args.quick {
        arguments.extend(["--seconds", "4"]);
    }
    for name in &args.only {
        arguments.extend(["--only", name]);
    }
    if args.kernel {
        arguments.push("--kernel");
    }
    let report = measured("neighbour", &arguments)?;
    match args.format {
        Format::Table => print!("{}", table(&report)),
        Format::Json => println!("{report:#}"),
    }
    judge(&report)
}

/// What must hold under every attack; all that does not is told.
fn judge(report: &Value) -> Result<()> {
    let rows = report["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let quiet = rows.first().context("nothing was measured")?;
    let slowest = (2.0 * number(quiet, "p99_ms")).max(SLOWEST_MS);
    let mut wrong = Vec::new();
    for row in rows {
        let name = row["name"].as_str().unwrap_or_default();
        if row["errors"] != 0 {
            let error = row["error"].as_str().unwrap_or_default();
            wrong.push(format!("{name}: {} honest calls failed, the first with {error}", row["errors"]));
        }
        let p99 = number(row, "p99_ms");
        if p99 > slowest {
            wrong.push(format!("{name}: the honest p99 was {p99:.1} ms, over {slowest:.1}"));
        }
        let rss = number(row, "rss_mib");
        if rss > MOST_RSS_MIB {
            wrong.push(format!("{name}: the gateway took {rss:.0} MiB, over {MOST_RSS_MIB:.0}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("the honest tenant noticed its neighbours:\n  {}", wrong.join("\n  "))
}

fn table(report: &Value) -> String {
    let rows = report["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let mut cells = vec![HEADS.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let rounded = |key: &str, digits: usize| format!("{:.*}", digits, number(row, key));
        [
            text("name"),
            text("what"),
            rounded("p50_ms", 2),
            rounded("p99_ms", 2),
            rounded("late_p99_ms", 2),
            row["errors"].to_string(),
            rounded("newcomers_per_second", 0),
            row["tried"].to_string(),
            rounded("served", 0),
            rounded("refused", 0),
            rounded("rss_mib", 0),
            rounded("cores_used", 2),
        ]
    }));
    let plan = &report["plan"];
    let mut text = format!(
        "honest callers, 200 calls a second, beside each attack for {} s, {} the kernel programs; the gateway has {} of \
         the cores, callers and attackers another; times in ms\n\n",
        plan["seconds"],
        if plan["kernel"] == true { "with" } else { "without" },
        report["cores"],
    );
    for row in &cells {
        for (column, cell) in row.iter().enumerate() {
            let width = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            let padded = match column {
                0 | 1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            };
            text.push_str(&padded);
            text.push_str(if column + 1 < row.len() { "  " } else { "\n" });
        }
    }
    text
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_default()
}

/// What an honest call may take, in milliseconds, where twice its quiet time is less.
const SLOWEST_MS: f64 = 10.0;
const MOST_RSS_MIB: f64 = 512.0;
/// `late` is how late the honest callers were woken themselves; `tried`, `served` and `refused` are the attackers'.
const HEADS: [&str; 12] = [
    "attack", "what", "p50", "p99", "late p99", "errors", "new/s", "tried", "served", "refused", "RSS MiB",
    "cores",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(p99: f64, errors: u64, rss: f64) -> Value {
        let row = |name: &str, p99: f64, errors: u64, rss: f64| {
            json!({"name": name, "what": "something", "calls": 800, "p50_ms": 0.5, "p99_ms": p99, "late_p99_ms": 1.0,
                "errors": errors, "error": "503", "newcomers_per_second": 99.7, "tried": 5, "served": 1.0,
                "refused": 4.0, "rss_mib": rss, "cores_used": 1.25})
        };
        json!({
            "plan": {"seconds": 4, "only": [], "kernel": false},
            "cores": 2,
            "rows": [row("quiet", 6.0, 0, 60.0), row("floods", p99, errors, rss)],
        })
    }

    #[test]
    fn an_honest_tenant_may_notice_little() {
        assert!(judge(&report(11.9, 0, 511.0)).is_ok());
        let all = judge(&report(12.1, 3, 513.0)).unwrap_err().to_string();
        for part in ["floods: 3 honest calls failed", "p99 was 12.1 ms, over 12.0", "took 513 MiB, over 512"]
        {
            assert!(all.contains(part), "{all}");
        }
        assert!(!all.contains("quiet:"), "{all}");
    }

    #[test]
    fn the_table_is_aligned() {
        let text = table(&report(9.0, 0, 100.0));
        let widths: Vec<_> = text.lines().skip(2).map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 3);
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
