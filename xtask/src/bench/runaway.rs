//! `cargo xtask bench runaway`: what runaway agents come to under a strict and under a soft ceiling, and what honest
//! callers get beside them. Fails when a strict budget was overshot or an honest tenant starved.

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::{Format, measured};

/// Options of `cargo xtask bench runaway`.
#[derive(Debug, Args)]
pub(super) struct RunawayArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Fewer agents, a smaller budget and a quarter of a minute: shows that it works
    #[arg(long)]
    quick: bool,
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
pub(super) fn run(args: &RunawayArgs) -> Result<()> {
    let arguments: &[&str] =
        if args.quick { &["--limit", "10000", "--agents", "40", "--seconds", "15"] } else { &[] };
    let report = measured("runaway", arguments)?;
    match args.format {
        Format::Table => print!("{}", table(&report)),
        Format::Json => println!("{report:#}"),
    }
    judge(&report)
}

/// What must hold.
fn judge(report: &Value) -> Result<()> {
    for runaway in list(&report["runaways"]) {
        let strict = runaway["ceiling"] == "strict";
        ensure!(
            !strict || runaway["overshoot"] == 0,
            "a strict budget was overshot by {} tokens",
            runaway["overshoot"]
        );
    }
    let share = report["honest"]["share"].as_f64().context("no share of the honest callers")?;
    ensure!(
        share >= LEAST_SHARE,
        "the honest callers got {:.1} % of what they could have had",
        share * 100.0
    );
    Ok(())
}

fn table(report: &Value) -> String {
    let (plan, honest) = (&report["plan"], &report["honest"]);
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(list(&report["runaways"]).iter().map(|runaway| {
        let dollars = |key: &str| format!("{:.2}", runaway[key].as_f64().unwrap_or_default());
        let text = |key: &str| runaway[key].as_str().unwrap_or_default().to_owned();
        let count = |key: &str| runaway[key].to_string();
        [
            text("ceiling"),
            text("manner"),
            count("answered"),
            count("refused"),
            count("prompt_tokens"),
            count("generated_tokens"),
            count("worst_minute"),
            plan["limit"].to_string(),
            count("overshoot"),
            dollars("dollars"),
            dollars("dollars_a_day"),
        ]
    }));
    let mut text = format!(
        "{} agents of each of {} tenants call without a pause for {} s, half of them streaming; \
         each tenant may use {} tokens a minute; gpt-4o's prices\n\n",
        plan["agents"],
        list(&report["runaways"]).len(),
        plan["seconds"],
        plan["limit"],
    );
    for row in &rows {
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for (column, cell) in row.iter().enumerate() {
            let padded = match column {
                0 | 1 => format!("{cell:<0$}", width(column)),
                _ => format!("{cell:>0$}", width(column)),
            };
            text.push_str(&padded);
            text.push_str(if column + 1 < row.len() { "  " } else { "\n" });
        }
    }
    text.push_str(&format!(
        "\nbeside them, {} honest callers who name no output limit: {} calls of some {} tokens answered whole, {} cut \
         short, {} refused first;\nan oracle that knows what each will use admits {}: {:.1} % of it\n",
        plan["honest_callers"],
        honest["whole"],
        honest["call_tokens"],
        honest["cut"],
        honest["refused"],
        honest["oracle"],
        honest["share"].as_f64().unwrap_or_default() * 100.0,
    ));
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

const LEAST_SHARE: f64 = 0.95;
const HEADS: [&str; 11] = [
    "ceiling",
    "agents",
    "answered",
    "refused",
    "prompt",
    "generated",
    "worst 60 s",
    "limit",
    "overshoot",
    "$",
    "$ a day",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(overshoot: u64, share: f64) -> Value {
        let runaway = |ceiling: &str, overshoot: u64| {
            json!({"ceiling": ceiling, "manner": "waits", "answered": 20, "refused": 400, "prompt_tokens": 460,
                "generated_tokens": 19_000, "worst_minute": 20_000 + overshoot, "overshoot": overshoot,
                "dollars": 0.2, "dollars_a_day": 144.0})
        };
        json!({
            "plan": {"limit": 20_000, "agents": 200, "honest_callers": 10, "seconds": 120},
            "runaways": [runaway("strict", overshoot), runaway("soft", 180_000)],
            "honest": {"whole": 170, "cut": 0, "refused": 30, "call_tokens": 223, "oracle": 178, "share": share},
        })
    }

    #[test]
    fn a_soft_ceiling_may_be_overshot_and_a_strict_one_may_not() {
        assert!(judge(&report(0, 0.96)).is_ok());
        assert!(judge(&report(1, 0.96)).unwrap_err().to_string().contains("overshot by 1 tokens"));
        assert!(judge(&report(0, 0.94)).unwrap_err().to_string().contains("94.0 %"));
    }

    #[test]
    fn the_table_is_aligned() {
        let text = table(&report(0, 0.955));
        let rows: Vec<_> = text.lines().skip(2).take(3).map(|line| line.chars().count()).collect();
        assert!(rows.iter().all(|width| *width == rows[0]), "{text}");
        assert!(text.contains("95.5 % of it"), "{text}");
    }
}
