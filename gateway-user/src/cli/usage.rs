//! `aoai-gateway usage`: who has used how many tokens and dollars, from the store's ledger.
//!
//! A database is read where no gateway uses it; otherwise the gateway that does is asked at its admin address. The
//! ledger of a fleet is read from the server that the nodes share.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use clap::{Args, ValueEnum};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{ConfigArg, Failure, table};
use crate::config::{Config, StoreLocation};
use crate::fleet;
use crate::ledger::{Adjusted, Dimension, Query, QueryError, Report, Since, Sums};
use crate::limits::Clock;
use crate::names::TenantName;
use crate::store::{self, StoreError};

/// What to tell.
#[derive(Debug, Args)]
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

/// Why a running gateway did not tell.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no way to it, or it broke off.
    #[error("the store is in use, and the gateway at {address} (admin) cannot be asked: {source}")]
    Unreachable {
        /// Its admin address.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// It refused.
    #[error("the gateway at {address} (admin) answered {status}: {answer}")]
    Refused {
        /// Its admin address.
        address: SocketAddr,
        /// The answer's status.
        status: StatusCode,
        /// The answer's text.
        answer: String,
    },
    /// What answers there is no gateway, or not of this version.
    #[error("what answers at {0} (admin) is no gateway of this version")]
    Foreign(SocketAddr),
}

pub(super) fn run(args: UsageArgs, out: &mut impl Write) -> Result<(), Failure> {
    let UsageArgs { config: ConfigArg { path }, since, by: Columns(by), tenant, format } = args;
    let config = Config::load(&path)?;
    let query = Query { since, by, tenant };
    let now = Clock::start().now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = match &config.store.location {
        StoreLocation::Redis(url) => runtime.block_on(fleet::read_ledger(url, &query, now))?,
        StoreLocation::Directory(directory) => match store::read(directory, &query, now) {
            Ok(report) => report,
            Err(StoreError::InUse { owner, .. }) => {
                let address = owner.map_or(config.admin.address, |owner| owner.admin);
                runtime.block_on(ask(reachable(address), &query))?
            }
            Err(error) => return Err(error.into()),
        },
    };
    Ok(match format {
        UsageFormat::Table => write_table(out, &report),
        UsageFormat::Csv => write_csv(out, &report),
        UsageFormat::Json => writeln!(out, "{:#}", report.to_json()),
    }?)
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

/// Asks a running gateway.
async fn ask(address: SocketAddr, query: &Query) -> Result<Report, AskError> {
    let unreachable = |source| AskError::Unreachable { address, source };
    let exchange = tokio::time::timeout(PATIENCE, exchange(address, query));
    let (status, answer) =
        exchange.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
    if status != StatusCode::OK {
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        return Err(AskError::Refused { address, status, answer });
    }
    let json =
        serde_json::from_slice(&answer).map_err(|_syntax: serde_json::Error| AskError::Foreign(address))?;
    Report::from_json(&json).ok_or(AskError::Foreign(address))
}

async fn exchange(address: SocketAddr, query: &Query) -> io::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(format!("/usage?{}", query.to_query_string()))
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = async {
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is read through a limit")]
        let body = Limited::new(body, MOST_ANSWER).collect().await.map_err(io::Error::other)?;
        let mut body = body.aggregate();
        let length = body.remaining();
        Ok((head.status, body.copy_to_bytes(length)))
    };
    tokio::pin!(connection);
    tokio::pin!(response);
    tokio::select! {
        answer = &mut response => answer,
        ended = &mut connection => match ended {
            Ok(()) => response.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// Where a gateway that listens on all addresses can be asked from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn columns(text: &str) -> Result<Columns, QueryError> {
    Dimension::list(text).map(Columns)
}

const LEAST_DECIMALS: usize = 4;
/// How long a gateway may take; a ledger of millions of rows takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MOST_ANSWER: usize = 256 << 20;

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
                "TENANT   MODEL        CALLS  PROMPT  CACHED  COMPLETION  REASONING  TOKENS      DOLLARS  \
                 ASSUMED TOKENS  ASSUMED DOLLARS  ADJUSTED TOKENS  ADJUSTED DOLLARS\n",
                "acme     gpt-4o-mini     12   12000       8         500          0   12500       2.5000  \
                             12           1.2500                0           -2.5000\n",
                "widgets  -                1    1000       8         500          0    1500  0.000012345  \
                              1      0.000006172                0      -0.000012345\n",
                "total                    13   13000      16        1000          0   14000  2.500012345  \
                             13      1.250006172                0      -2.500012345\n",
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
