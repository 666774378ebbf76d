//! `aoai-gateway usage`: who has used how many tokens and dollars, from the store's ledger.
//!
//! A database is read where no gateway uses it; otherwise the gateway that does is asked at its admin address. The
//! ledger of a fleet is read from the server that the nodes share.

use std::io::{self, Write};
use std::net::SocketAddr;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::ask::Admin;
use super::{ConfigArg, Failure, table};
use crate::admin::adjust::{ADJUST, Asked};
use crate::config::{Config, StoreLocation};
use crate::fleet;
use crate::ledger::{Adjusted, Dimension, Note, NoteError, Query, QueryError, Report, Since, Sums};
use crate::limits::Clock;
use crate::names::TenantName;
use crate::store::{self, StoreError};
use crate::units::signed_nano_dollars;

/// What to tell.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct UsageArgs {
    /// The configuration, which names the store.
    #[command(flatten)]
    pub config: ConfigArg,
    /// From when on: 12h, 7d, 4w, 2026-01-31 or 2026-01-31T12:00:00Z; whole hours count
    #[arg(long, default_value = "7d", value_name = "START")]
    pub since: Since,
    /// What to tell apart, with commas between: tenant, deployment, model, kind, hour, day
    #[arg(long, default_value = "tenant,deployment,model", value_name = "COLUMNS", value_parser = columns)]
    pub by: Columns,
    /// Of this tenant only
    #[arg(long, value_name = "NAME", value_parser = TenantName::new)]
    pub tenant: Option<TenantName>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub format: UsageFormat,
    /// What to do instead of telling.
    #[command(subcommand)]
    pub command: Option<UsageCommand>,
}

/// What can be done to the books.
#[derive(Debug, Subcommand)]
pub enum UsageCommand {
    /// Give back to a tenant, or charge it, beside its calls: asked of the running gateway
    Adjust(AdjustArgs),
}

/// What to adjust.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("amount").args(["tokens", "dollars"]).required(true).multiple(true))]
pub struct AdjustArgs {
    /// Whose books
    #[arg(value_parser = TenantName::new)]
    pub tenant: TenantName,
    /// Tokens to charge, or, below zero, to give back
    #[arg(long, value_name = "±N", allow_hyphen_values = true)]
    pub tokens: Option<i64>,
    /// Dollars to charge, or, below zero, to give back
    #[arg(long, value_name = "±D", allow_hyphen_values = true, value_parser = dollar_amount)]
    pub dollars: Option<String>,
    /// Why: at most 200 characters, kept with the adjustment
    #[arg(long, value_name = "TEXT", value_parser = note)]
    pub note: String,
    /// Give back more than was assumed of the tenant's calls
    #[arg(long)]
    pub force: bool,
}

fn dollar_amount(text: &str) -> Result<String, &'static str> {
    signed_nano_dollars(text)
        .map(|_| text.to_owned())
        .ok_or("must be a decimal number with at most nine decimals")
}

fn note(text: &str) -> Result<String, NoteError> {
    Note::new(text).map(|note| note.to_string())
}

/// What to tell apart, in the order of the columns.
#[derive(Debug, Clone)]
pub struct Columns(Vec<Dimension>);

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum UsageFormat {
    /// For people, with a total
    #[default]
    Table,
    /// For spreadsheets (RFC 4180)
    Csv,
    /// For programs
    Json,
}

pub(super) fn run(args: UsageArgs, out: &mut impl Write) -> Result<(), Failure> {
    let UsageArgs { config: ConfigArg { path }, since, by: Columns(by), tenant, format, command } = args;
    let config = Config::load(&path)?;
    if let Some(UsageCommand::Adjust(args)) = command {
        return adjust(&config, args, out);
    }
    let query = Query { since, by, tenant };
    let now = Clock::start().now();
    let report = match &config.store.location {
        StoreLocation::Redis(url) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(fleet::read_ledger(url, &query, now))?
        }
        StoreLocation::Directory(directory) => match store::read(directory, &query, now) {
            Ok(report) => report,
            Err(StoreError::InUse { .. }) => ask(Admin::at(admin(&config)).patiently(), &query)?,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(match format {
        UsageFormat::Table => write_table(out, &report),
        UsageFormat::Csv => write_csv(out, &report),
        UsageFormat::Json => writeln!(out, "{:#}", report.to_json()),
    }?)
}

/// Asks a running gateway for a report.
fn ask(admin: Admin, query: &Query) -> Result<Report, Failure> {
    let answer = admin.get(&format!("/usage?{}", query.to_query_string()))?;
    Ok(Report::from_json(&answer).ok_or_else(|| admin.foreign())?)
}

/// Has a running gateway adjust its books.
fn adjust(config: &Config, args: AdjustArgs, out: &mut impl Write) -> Result<(), Failure> {
    let AdjustArgs { tenant, tokens, dollars, note, force } = args;
    let tenant = tenant.to_string();
    let asked = Asked { tenant, tokens: tokens.unwrap_or(0), dollars, note, force };
    let admin = Admin::at(admin(config)).patiently();
    let answer = admin.post(ADJUST, Some(&asked))?;
    let figure = |key: &str| answer.get(key).map(ToString::to_string);
    let said = figure("adjusted_tokens").zip(figure("adjusted_dollars"));
    let (tokens, cost) = said.ok_or_else(|| admin.foreign())?;
    let cost = cost.trim_matches('"');
    let tenant = &asked.tenant;
    writeln!(out, "{tenant}: adjusted by {tokens} tokens and {} dollars", self::dollars(cost))?;
    if answer.get("on_disk") != Some(&Value::Bool(true)) {
        writeln!(out, "the store is slow or down: the adjustment is kept in memory until it is back")?;
    }
    Ok(())
}

/// Where the gateway answers operators that uses the store.
fn admin(config: &Config) -> SocketAddr {
    let owner = match &config.store.location {
        StoreLocation::Directory(directory) => store::admin_of(directory),
        StoreLocation::Redis(_) => None,
    };
    owner.unwrap_or(config.admin.address)
}

fn write_table(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut heads: Vec<_> = report.by.iter().map(|dimension| dimension.as_str().to_uppercase()).collect();
    heads.extend(FIGURES.map(|(head, _)| head.to_owned()));
    let mut rows: Vec<Vec<_>> = report
        .lines
        .iter()
        .map(|line| {
            let cells = line.cells.iter().map(|cell| if cell.is_empty() { "-" } else { cell }.to_owned());
            cells.chain(figures(&line.sums)).collect()
        })
        .collect();
    let total =
        report.by.iter().enumerate().map(|(place, _)| if place == 0 { "total" } else { "" }.to_owned());
    rows.push(total.chain(figures(&report.total())).collect());
    table::write_with_figures(out, &heads, &rows, report.by.len())?;
    write_adjusted(out, report)
}

/// What operators adjusted, below the table if there is any.
fn write_adjusted(out: &mut impl Write, report: &Report) -> io::Result<()> {
    if report.adjusted.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rows: Vec<_> = report
        .adjusted
        .iter()
        .map(|Adjusted { at, tenant, sums, note }| {
            let (tokens, dollars) = (sums.adjusted_tokens().to_string(), dollars(&sums.adjusted_dollars()));
            [at.clone(), tenant.clone(), tokens, dollars, note.clone()]
        })
        .collect();
    table::write(out, ["ADJUSTED AT", "TENANT", "TOKENS", "DOLLARS", "NOTE"], &rows)
}

fn write_csv(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let heads = report.by.iter().map(|dimension| dimension.as_str()).chain(FIGURES.map(|(_, name)| name));
    // No name, number or time holds a comma or a quote, so that nothing needs quoting.
    write!(out, "{}\r\n", heads.collect::<Vec<_>>().join(","))?;
    for line in &report.lines {
        let cells = line.cells.iter().cloned().chain(figures(&line.sums));
        write!(out, "{}\r\n", cells.collect::<Vec<_>>().join(","))?;
    }
    Ok(())
}

/// The heads of the columns with figures, in a table for people and in one for spreadsheets.
const FIGURES: [(&str, &str); 11] = [
    ("CALLS", "calls"),
    ("PROMPT", "prompt_tokens"),
    ("CACHED", "cached_prompt_tokens"),
    ("COMPLETION", "completion_tokens"),
    ("REASONING", "reasoning_tokens"),
    ("TOKENS", "tokens"),
    ("DOLLARS", "dollars"),
    ("ASSUMED TOKENS", "assumed_tokens"),
    ("ASSUMED DOLLARS", "assumed_dollars"),
    ("ADJUSTED TOKENS", "adjusted_tokens"),
    ("ADJUSTED DOLLARS", "adjusted_dollars"),
];

fn figures(sums: &Sums) -> [String; FIGURES.len()] {
    [
        sums.calls.to_string(),
        sums.prompt.to_string(),
        sums.cached_prompt.to_string(),
        sums.completion.to_string(),
        sums.reasoning.to_string(),
        sums.tokens().to_string(),
        dollars(&sums.cost.decimal()),
        sums.assumed_tokens.to_string(),
        dollars(&sums.assumed_cost.decimal()),
        sums.adjusted_tokens().to_string(),
        dollars(&sums.adjusted_dollars()),
    ]
}

/// Every digit that says something, and at least four decimals.
fn dollars(decimal: &str) -> String {
    let trimmed = decimal.trim_end_matches('0');
    let least = decimal.find('.').map_or(0, |point| point + 1 + LEAST_DECIMALS);
    decimal.chars().take(trimmed.len().max(least)).collect()
}

fn columns(text: &str) -> Result<Columns, QueryError> {
    Dimension::list(text).map(Columns)
}

const LEAST_DECIMALS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Line;
    use crate::units::{NanoDollars, Tokens};

    fn report() -> Report {
        let line = |cells: [&str; 2], calls, nanos| Line {
            cells: cells.map(str::to_owned).to_vec(),
            sums: Sums {
                calls,
                prompt: Tokens::new(1000 * calls),
                cached_prompt: Tokens::new(8),
                completion: Tokens::new(500),
                reasoning: Tokens::ZERO,
                cost: NanoDollars::new(nanos),
                assumed_tokens: Tokens::new(calls),
                assumed_cost: NanoDollars::new(nanos / 2),
                given_back_cost: NanoDollars::new(nanos),
                ..Sums::default()
            },
        };
        Report {
            since: "2024-02-29T00:00:00Z".to_owned(),
            by: vec![Dimension::Tenant, Dimension::Model],
            lines: vec![line(["acme", "gpt-4o-mini"], 12, 2_500_000_000), line(["widgets", ""], 1, 12_345)],
            adjusted: vec![Adjusted {
                at: "2024-02-29T13:14:15Z".to_owned(),
                tenant: "acme".to_owned(),
                sums: Sums { given_back_cost: NanoDollars::new(2_500_000_000), ..Sums::default() },
                note: "brown-out, ticket 7".to_owned(),
            }],
        }
    }

    fn written(write: fn(&mut Vec<u8>, &Report) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out, &report()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_has_figures_to_the_right_and_a_total() {
        assert_eq!(
            written(write_table),
            [
                "TENANT   MODEL        CALLS  PROMPT  CACHED  COMPLETION  REASONING  TOKENS      DOLLARS",
                "  ASSUMED TOKENS  ASSUMED DOLLARS  ADJUSTED TOKENS  ADJUSTED DOLLARS\n",
                "acme     gpt-4o-mini     12   12000       8         500          0   12500       2.5000",
                "              12           1.2500                0           -2.5000\n",
                "widgets  -                1    1000       8         500          0    1500  0.000012345",
                "               1      0.000006172                0      -0.000012345\n",
                "total                    13   13000      16        1000          0   14000  2.500012345",
                "              13      1.250006172                0      -2.500012345\n",
                "\n",
                "ADJUSTED AT           TENANT  TOKENS  DOLLARS  NOTE\n",
                "2024-02-29T13:14:15Z  acme    0       -2.5000  brown-out, ticket 7\n",
            ]
            .concat()
        );
    }

    #[test]
    fn a_csv_has_a_header_and_no_total() {
        assert_eq!(
            written(write_csv),
            "tenant,model,calls,prompt_tokens,cached_prompt_tokens,completion_tokens,reasoning_tokens,tokens,dollars,\
             assumed_tokens,assumed_dollars,adjusted_tokens,adjusted_dollars\r\n\
             acme,gpt-4o-mini,12,12000,8,500,0,12500,2.5000,12,1.2500,0,-2.5000\r\n\
             widgets,,1,1000,8,500,0,1500,0.000012345,1,0.000006172,0,-0.000012345\r\n"
        );
    }

    #[test]
    fn an_adjustment_names_an_amount_and_a_reason() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: AdjustArgs,
        }
        let parse = |line: &[&str]| {
            let line = <Line as clap::Parser>::try_parse_from(["adjust", "acme"].iter().chain(line));
            line.map(|line| (line.args.tokens, line.args.dollars)).map_err(|error| error.to_string())
        };
        let both = ["--tokens", "-5", "--dollars", "-0.25", "--note", "why"];
        assert_eq!(parse(&both), Ok((Some(-5), Some("-0.25".to_owned()))));
        assert!(parse(&both[..2]).unwrap_err().contains("--note"));
        assert!(parse(&both[4..]).unwrap_err().contains("--tokens"));
        assert!(parse(&["--dollars", "1e3", "--note", "why"]).unwrap_err().contains("decimal number"));
    }

    #[test]
    fn dollars_show_four_decimals_and_every_digit_beyond() {
        for (nanos, shown) in [
            (0, "0.0000"),
            (1, "0.000000001"),
            (150_000_000, "0.1500"),
            (1_234_560_000, "1.23456"),
            (12_000_000_000, "12.0000"),
        ] {
            assert_eq!(dollars(&NanoDollars::new(nanos).decimal()), shown);
        }
    }
}
