//! The ledger of a fleet: what each node has added to each hour, in the server that the nodes share.
//!
//! An hour is one hash. In it each node has fields of its own, and writes there *all* that it has added in that hour (or
//! since the clock came back to it): a write that is repeated, or whose answer was lost, changes nothing. Who reads adds the
//! nodes up. What was written is remembered until the next hour has passed and is written again over every new connection,
//! so that a server that comes back without its last seconds, or empty, is told again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Client;
use redis::aio::MultiplexedConnection;

use super::StoreError;
use super::link::{Connection, Link, in_time};
use crate::config::RedisUrl;
use crate::gateway::Gateway;
use crate::ledger::{
    Column, Key, Kind, Pending, Query, RETENTION_HOURS, Report, Row, Summary, Sums, hour_of,
};
use crate::limits::Now;
use crate::names::{DeploymentName, ModelName, TenantName};

/// How often what was used is written.
pub(super) const INTERVAL: Duration = Duration::from_millis(450);
/// For how long what was used is kept in memory while the server takes nothing. There are at most as many rows an hour
/// as tenants, deployments and kinds of answers.
const PATIENCE_HOURS: u64 = 24;
/// How often, in looks, it is looked for removed tenants of which nothing has to be kept.
const LOOKS_FOR_OVER: u64 = 20;
/// Fields of one command: it takes the server well under a millisecond.
const ROWS_AT_ONCE: usize = 500;
const RETENTION_SECONDS: u64 = RETENTION_HOURS * 3600;

/// What this node has used and the fleet's ledger may not have yet.
#[derive(Debug)]
pub(super) struct Ledger(tokio::sync::Mutex<Log>);

#[derive(Debug)]
struct Log {
    pending: Pending,
    /// How often it was looked at what was used.
    looks: u64,
    /// When it was last looked at what was used: what is found next belongs to that hour.
    hour: u64,
    /// What it was last written over.
    connection: Weak<Connection>,
}

impl Ledger {
    pub(super) fn new(hour: u64) -> Self {
        let log = Log { pending: Pending::default(), looks: 0, hour, connection: Weak::new() };
        Self(tokio::sync::Mutex::new(log))
    }

    /// Looks at what was used, and where there is a connection writes it.
    pub(super) async fn keep(
        &self,
        link: &Link,
        connection: Option<&Arc<Connection>>,
        gateway: &Gateway,
    ) -> Result<(), StoreError> {
        let mut log = self.0.lock().await;
        let begun = gateway.clock.now();
        log.collect(gateway, begun);
        let Some(connection) = connection else { return Ok(()) };
        log.write(&link.node, connection).await?;
        let metrics = &gateway.metrics;
        let took_ms = gateway.clock.now().monotonic_ms - begun.monotonic_ms;
        metrics.store_checkpoint.observe(Duration::from_millis(took_ms).as_secs_f64());
        // Whether the server has it on its disk, it does not say.
        for at_ms in [&metrics.store_kept_at_ms, &metrics.store_on_disk_at_ms] {
            at_ms.store(begun.monotonic_ms, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Log {
    fn collect(&mut self, gateway: &Gateway, now: Now) {
        self.looks += 1;
        let over = if self.looks.is_multiple_of(LOOKS_FOR_OVER) { gateway.over(now) } else { Vec::new() };
        gateway.metrics.read_cost(|counters| self.pending.collect(self.looks, self.hour, counters));
        gateway.forget(over, now);
        self.hour = hour_of(now.utc_seconds);
        let lost = self.pending.forget(self.hour.saturating_sub(PATIENCE_HOURS));
        if lost != Sums::default() {
            let (calls, tokens) = (lost.calls, lost.tokens().get());
            tracing::error!(calls, tokens, "the store was away for too long: the ledger is without these");
        }
    }

    async fn write(&mut self, node: &str, connection: &Arc<Connection>) -> Result<(), StoreError> {
        if !std::ptr::eq(self.connection.as_ptr(), Arc::as_ptr(connection)) {
            // What another connection was told may be lost since.
            self.pending.repeat();
            self.connection = Arc::downgrade(connection);
        }
        let writing = self.pending.rows();
        let mut hours: BTreeMap<u64, Vec<[String; 2]>> = BTreeMap::new();
        for Row { hour, key, part, sums, .. } in &writing {
            hours.entry(*hour).or_default().push([field(node, key, *part), value(sums)]);
        }
        for (hour, rows) in hours {
            for rows in rows.chunks(ROWS_AT_ONCE) {
                let mut commands = redis::pipe();
                commands.cmd("HSET").arg(hash(hour)).arg(rows.as_flattened()).ignore();
                commands.cmd("EXPIRE").arg(hash(hour)).arg(RETENTION_SECONDS).ignore();
                let mut connection = connection.multiplexed();
                in_time(commands.query_async::<()>(&mut connection)).await?;
            }
        }
        self.pending.written(&writing, self.hour.saturating_sub(1));
        Ok(())
    }
}

/// Answers from what all nodes have written.
pub(super) async fn read(
    mut connection: MultiplexedConnection,
    query: &Query,
    utc_seconds: u64,
) -> Result<Report, StoreError> {
    let mut summary = Summary::new(query, utc_seconds);
    // The clock of another node may be in the next hour already.
    let last = hour_of(utc_seconds) + 1;
    for hour in summary.first_hour().max(last.saturating_sub(RETENTION_HOURS))..=last {
        for (name, value) in fields(&mut connection, hour).await? {
            let (key, sums) = row(&name, &value).ok_or(StoreError::Answer)?;
            summary.add(hour, &key, sums, None);
        }
    }
    Ok(summary.report())
}

/// What the ledger of a fleet says, asked of its store.
///
/// # Errors
/// When the store cannot be reached or does not answer.
pub async fn read_ledger(url: &RedisUrl, query: &Query, now: Now) -> Result<Report, LedgerError> {
    let failed = |source| LedgerError { url: url.clone(), source };
    let client = Client::open(url.reveal()).map_err(|error| failed(error.into()))?;
    let connection = Connection::open(&client).await.map_err(failed)?;
    read(connection.multiplexed(), query, now.utc_seconds).await.map_err(failed)
}

/// Why the ledger of a fleet cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("store: {url}: {source}")]
pub struct LedgerError {
    /// The store.
    pub url: RedisUrl,
    /// What happened there.
    pub source: StoreError,
}

/// The fields of an hour, a few at a time, so that no node's call has to wait for long.
async fn fields(
    connection: &mut MultiplexedConnection,
    hour: u64,
) -> Result<HashMap<String, String>, StoreError> {
    let mut fields = HashMap::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(hash(hour)).arg(cursor).arg("COUNT").arg(ROWS_AT_ONCE);
        let (next, some): (u64, Vec<(String, String)>) = in_time(scan.query_async(connection)).await?;
        // A field may come twice.
        fields.extend(some);
        if next == 0 {
            return Ok(fields);
        }
        cursor = next;
    }
}

fn hash(hour: u64) -> String {
    format!("aoai-gateway:usage:{hour}")
}

// No name holds a space.
fn field(node: &str, key: &Key, part: u64) -> String {
    let deployment = key.deployment.as_ref().map_or("", DeploymentName::as_str);
    let model = key.model.as_ref().map_or("", ModelName::as_str);
    format!("{node} {} {deployment} {model} {} {part}", key.tenant, key.kind.as_str())
}

/// The columns that nodes of the first version write and read: their figures come first, in this order and without names.
const FIRST: [Column; 6] = [
    Column::Calls,
    Column::Prompt,
    Column::CachedPrompt,
    Column::Completion,
    Column::Reasoning,
    Column::Cost,
];

/// A row's figures. Behind those that every version knows come the others, each as its column's number, a colon and the
/// figure: a node reads up to there what an earlier one wrote, and passes over what it does not know.
fn value(sums: &Sums) -> String {
    let first = FIRST.map(|column| column.of(sums).to_string());
    let others = Column::ALL.into_iter().filter(|column| !FIRST.contains(column) && column.of(sums) > 0);
    let others = others.map(|column| format!("{}:{}", column.number(), column.of(sums)));
    first.into_iter().chain(others).collect::<Vec<_>>().join(" ")
}

/// What a field is about, and its figures; nothing where no gateway can have written it.
fn row(field: &str, value: &str) -> Option<(Key, Sums)> {
    let mut names = field.split(' ').skip(1);
    let key = Key {
        tenant: TenantName::new(names.next()?).ok()?,
        deployment: DeploymentName::new(names.next()?).ok(),
        model: ModelName::new(names.next()?).ok(),
        kind: names
            .next()
            .map(|name| Kind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Kind::Other))?,
    };
    let mut figures = value.split(' ');
    let mut amounts = Vec::with_capacity(Column::ALL.len());
    for column in FIRST {
        amounts.push((column, figures.next()?.parse().ok()?));
    }
    for (number, figure) in figures.filter_map(|figure| figure.split_once(':')) {
        let column = number.parse().ok().and_then(Column::numbered);
        if let Some(column) = column {
            amounts.push((column, figure.parse().ok()?));
        }
    }
    Some((key, amounts.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{NanoDollars, Tokens};

    #[test]
    fn a_row_survives_its_text() {
        let key = Key {
            tenant: TenantName::new("acme").unwrap(),
            deployment: DeploymentName::new("chat").ok(),
            model: ModelName::new("gpt-4o-mini").ok(),
            kind: Kind::Stream,
        };
        let sums = Sums {
            calls: 1,
            prompt: Tokens::new(2),
            cached_prompt: Tokens::new(3),
            completion: Tokens::new(4),
            reasoning: Tokens::new(5),
            cost: NanoDollars::new(u64::MAX),
            assumed_tokens: Tokens::new(6),
            ..Sums::default()
        };
        assert_eq!(value(&sums), "1 2 3 4 5 18446744073709551615 7:6");
        assert_eq!(row(&field("0123456789abcdef", &key, 7), &value(&sums)), Some((key, sums)));
        for (field, value) in [
            ("node acme chat gpt-4o-mini stream 7", "1 2 3 4 5"),
            ("node acme chat gpt-4o-mini stream 7", "1 2 3 4 5 6 7:x"),
            ("acme", "1 2 3 4 5 6"),
            ("node acme chat gpt-4o-mini stream 7", "1 2 -3 4 5 6"),
        ] {
            assert_eq!(row(field, value), None, "{field}: {value}");
        }
    }

    #[test]
    fn nodes_of_two_versions_read_each_other() {
        let field = "node acme chat gpt-4o-mini stream 7";
        let (_, sums) = row(field, "1 2 3 4 5 6").unwrap();
        assert_eq!((sums.calls, sums.cost, sums.assumed_tokens), (1, NanoDollars::new(6), Tokens::ZERO));
        let (key, sums) = row("node acme chat gpt-4o-mini hologram 7", "1 2 3 4 5 6 7:8 99:1 words").unwrap();
        assert_eq!((key.kind, sums.calls, sums.assumed_tokens), (Kind::Other, 1, Tokens::new(8)));
        // The first version splits at blanks and takes six figures, whatever comes behind them.
        let written = value(&Sums { calls: 1, assumed_tokens: Tokens::new(8), ..Sums::default() });
        let first: Vec<_> = written.split(' ').map(|figure| figure.parse::<u64>().ok()).take(6).collect();
        assert_eq!(first, [Some(1), Some(0), Some(0), Some(0), Some(0), Some(0)]);
    }
}
