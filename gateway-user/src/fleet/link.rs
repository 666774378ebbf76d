//! The way to the store: one connection, whether it works, and what follows where it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::metrics::FleetMetrics;
use super::script::{LEASE_SCRIPT, NODES_SCRIPT, lease_arguments, lease_reply};
use super::{DEADLINE, LEASE_LIFETIME};
use crate::config::{RedisUrl, WhenDown};
use crate::limits::{Clock, Footing, LeaseReply, LeaseRequest, Standing};
use crate::names::TenantName;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The nodes that live. The braces make it one slot of a cluster with the other, see nodes.lua.
const NODES_KEY: &str = "aoai-gateway:{fleet}:nodes";
/// Which memory the server has.
const MEMORY_KEY: &str = "aoai-gateway:{fleet}:memory";

/// Why the store cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The client library cannot use the URL.
    #[error("store.url: {0}")]
    Url(#[source] RedisError),
    /// The system gives no random bytes.
    #[error("the system has no randomness for the node's name: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It refused, or the connection broke.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It answered with something else than the script's values.
    #[error("an answer that is none of the gateway's scripts'")]
    Answer,
    /// It cannot be reached at the moment.
    #[error("the store is down: {0}")]
    Down(Box<str>),
}

/// Whether the server still has what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// As far as can be told.
    Kept,
    /// All of it is gone.
    Lost,
}

/// What is known of the server's memory.
#[derive(Debug, Default)]
struct Known {
    /// Its name; empty before it was asked first.
    name: String,
    /// Until when it may lack what nodes have to report again, on its clock.
    settled_ms: u64,
}

/// A connection to the store; clones share it.
#[derive(Debug)]
pub(super) struct Connection(MultiplexedConnection);

impl Connection {
    pub(super) async fn open(client: &Client) -> Result<Self, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(DEADLINE));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_elapsed| StoreError::Timeout(CONNECT_TIMEOUT))??;
        Ok(Self(connection))
    }

    pub(super) fn multiplexed(&self) -> MultiplexedConnection {
        self.0.clone()
    }
}

/// The way to the store.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) url: RedisUrl,
    pub(super) when_down: WhenDown,
    /// This process's name among the nodes: no two have the same, not even one before and after a restart.
    pub(super) node: Box<str>,
    pub(super) standing: Arc<Standing>,
    client: Client,
    lease: Script,
    nodes: Script,
    /// `None` while the store is down.
    connection: ArcSwapOption<Connection>,
    failed: Notify,
    live: AtomicU32,
    known: Mutex<Known>,
    state: Mutex<State>,
    clock: Clock,
    metrics: FleetMetrics,
}

/// Whether the store works, for people.
#[derive(Debug, Clone)]
struct State {
    since: u64,
    /// `None` when it does.
    trouble: Option<Box<str>>,
    /// The last change was logged: the first attempt to reach it is one too.
    told: bool,
}

/// Whether the store works, for people.
#[derive(Debug)]
pub(super) struct LinkStatus {
    /// Since when it does or does not, in seconds since 1970-01-01 UTC.
    pub(super) since: u64,
    /// Why it does not.
    pub(super) trouble: Option<Box<str>>,
    /// Nodes that lived when it was last reached; `None` when it never was.
    pub(super) nodes: Option<u32>,
}

impl Link {
    pub(super) fn new(
        url: &RedisUrl,
        when_down: WhenDown,
        clock: Clock,
        metrics: FleetMetrics,
    ) -> Result<Self, OpenError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name)?;
        Ok(Self {
            client: Client::open(url.reveal()).map_err(OpenError::Url)?,
            url: url.clone(),
            when_down,
            node: format!("{:016x}", u64::from_be_bytes(name)).into(),
            standing: Arc::new(Standing::new(match when_down {
                WhenDown::Degraded => Footing::Alone,
                WhenDown::Refuse => Footing::Refusing,
            })),
            lease: Script::new(LEASE_SCRIPT),
            nodes: Script::new(NODES_SCRIPT),
            connection: ArcSwapOption::empty(),
            failed: Notify::new(),
            live: AtomicU32::new(0),
            known: Mutex::default(),
            state: Mutex::new(State {
                since: clock.now().utc_seconds,
                trouble: Some("not reached yet".into()),
                told: false,
            }),
            clock,
            metrics,
        })
    }

    /// A new connection, which calls do not use yet.
    pub(super) async fn connect(&self) -> Result<Arc<Connection>, StoreError> {
        Connection::open(&self.client).await.map(Arc::new)
    }

    /// The connection that calls use, while there is one.
    pub(super) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.load_full()
    }

    /// Ready once a call's request has failed.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Lets calls use a connection.
    pub(super) fn up(&self, connection: Arc<Connection>) {
        self.connection.store(Some(connection));
        self.standing.set_up(true);
        self.metrics.up.set(1);
        *self.state.lock() = State { since: self.clock.now().utc_seconds, trouble: None, told: false };
        let nodes = self.live.load(Ordering::Relaxed);
        tracing::info!(store = %self.url, nodes, "the store is up: the fleet's budgets are shared");
    }

    /// Closes the way, when it was this connection that calls use; a later one is not to blame.
    pub(super) fn fail(&self, failed: &Arc<Connection>, error: StoreError) {
        let before = self.connection.compare_and_swap(failed, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, failed)) {
            self.down(&error);
            self.failed.notify_one();
        }
    }

    /// Notes that the store is down.
    pub(super) fn down(&self, error: &StoreError) {
        self.standing.set_up(false);
        self.metrics.up.set(0);
        let told = {
            let mut state = self.state.lock();
            if !state.told {
                state.since = self.clock.now().utc_seconds;
            }
            state.trouble = Some(error.to_string().into());
            std::mem::replace(&mut state.told, true)
        };
        if !told {
            let mode = match self.when_down {
                WhenDown::Degraded => "degraded: calls are served from what is leased and the outage shares",
                WhenDown::Refuse => "refuse: calls are refused",
            };
            tracing::error!(store = %self.url, error = %error, mode, "the store is down");
        }
    }

    /// Says that this node lives, and learns how many do.
    pub(super) async fn beat(&self, connection: &Connection) -> Result<Memory, StoreError> {
        let (count, name, settled_ms) = self.say(connection, LEASE_LIFETIME).await?;
        self.live.store(count, Ordering::Relaxed);
        self.metrics.nodes.set(i64::from(count));
        let mut known = self.known.lock();
        known.settled_ms = settled_ms;
        let lost = !known.name.is_empty() && known.name != name;
        known.name = name;
        Ok(if lost { Memory::Lost } else { Memory::Kept })
    }

    /// Says that this node goes.
    pub(super) async fn leave(&self, connection: &Connection) -> Result<(), StoreError> {
        self.say(connection, Duration::ZERO).await.map(drop)
    }

    async fn say(
        &self,
        connection: &Connection,
        lives_for: Duration,
    ) -> Result<(u32, String, u64), StoreError> {
        let known = self.known.lock().name.clone();
        let mut connection = connection.multiplexed();
        let mut call = self.nodes.prepare_invoke();
        call.key(NODES_KEY).key(MEMORY_KEY).arg(&*self.node).arg(millis(lives_for)).arg(known);
        in_time(call.invoke_async(&mut connection)).await
    }

    /// Sends a request for a lease; `None` when a later one was answered before it.
    pub(super) async fn lease(
        &self,
        connection: &Connection,
        tenant: &TenantName,
        request: &LeaseRequest,
    ) -> Result<Option<LeaseReply>, StoreError> {
        let started = Instant::now();
        let mut connection = connection.multiplexed();
        let mut call = self.lease.prepare_invoke();
        // The braces make it one slot of a cluster, whatever else is kept of a tenant one day.
        call.key(format!("aoai-gateway:{{{tenant}}}"));
        let settled_ms = self.known.lock().settled_ms;
        call.arg(lease_arguments(&self.node, request, millis(LEASE_LIFETIME), settled_ms));
        let reply = in_time(call.invoke_async(&mut connection)).await;
        self.metrics.lease_seconds.observe(started.elapsed().as_secs_f64());
        lease_reply(&reply?)
    }

    pub(super) fn status(&self) -> LinkStatus {
        let State { since, trouble, told: _ } = self.state.lock().clone();
        let live = self.live.load(Ordering::Relaxed);
        LinkStatus { since, trouble, nodes: (live > 0).then_some(live) }
    }
}

/// An answer that is there within the deadline.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, StoreError> {
    Ok(timeout(DEADLINE, answer).await.map_err(|_elapsed| StoreError::Timeout(DEADLINE))??)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
