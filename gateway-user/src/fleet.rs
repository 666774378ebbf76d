//! One budget over all nodes of a fleet: nodes lease slices of it from a Redis or Valkey server that they share.
//!
//! A node holds and uses only what it has leased, so that most calls ask nobody; the account decides
//! ([`Account`]), and this module keeps it supplied. A call that finds too little leased waits
//! once, briefly, for a larger lease. In the background each active tenant's use is reported and its lease renewed
//! every second, and what idle tenants leased is given back. The leases of a node that dies expire. The ledger is kept
//! there too.
//!
//! No call waits for a server that does not answer: the first request to fail closes the way there for all of them, and
//! until the server is back a node serves from what it has leased and its outage shares, or refuses, as configured.

mod asking;
mod ledger;
mod link;
mod metrics;
mod script;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::{RedisUrl, WhenDown};
use crate::gateway::{Gateway, Tenant};
use crate::ledger::{Query, Report, hour_of};
use crate::limits::{Account, Ask, Clock, Cover, Limits, Occasion, Ticket};
use crate::metrics::Metrics;
use crate::names::TenantName;
use crate::reply::utc;
use crate::units::{Prices, Tokens};
pub(crate) use asking::Asking;
use ledger::Ledger;
pub use ledger::{LedgerError, read_ledger};
use link::{Connection, Link, Memory};
pub use link::{OpenError, StoreError};
use metrics::FleetMetrics;
pub use metrics::Leases;
pub use script::{lease_arguments, lease_reply};

/// How long a call waits for a larger lease, all told, and how long any request to the store may take.
pub const DEADLINE: Duration = Duration::from_millis(250);
/// How long a lease is good for after the request that it came with.
pub const LEASE_LIFETIME: Duration = Duration::from_secs(5);
/// How often a node says that it lives, and learns whether the store does.
const BEAT: Duration = Duration::from_millis(500);
/// How often, at least, an active tenant's use is reported and its lease renewed, to within a beat.
const RENEWAL: Duration = Duration::from_millis(750);
/// How long to wait before the next attempt to reach a store that is down.
const RECONNECT: Duration = Duration::from_millis(250);
/// How long a node that stops may take to give its leases back.
const LEAVE: Duration = Duration::from_secs(1);
/// Requests to the store under way at once in the background.
const MOST_RENEWALS: usize = 32;
/// Tenants that may wait for a renewal ahead of its time.
const MOST_NUDGES: usize = 256;
/// How often a call asks before it takes no for an answer: others may be quicker to use what it was leased.
const MOST_ASKS: u32 = 3;

/// A node's part in a fleet.
#[derive(Debug)]
pub struct Fleet {
    link: Link,
    ledger: Ledger,
    clock: Clock,
    /// Of tenants that are talked about with the store, whose turn it is.
    turns: Mutex<HashMap<TenantName, Arc<tokio::sync::Mutex<()>>>>,
    nudge: mpsc::Sender<Arc<Tenant>>,
    nudged: tokio::sync::Mutex<mpsc::Receiver<Arc<Tenant>>>,
}

impl Fleet {
    /// A node of the fleet that shares the server at `url`; it is not connected to yet.
    ///
    /// # Errors
    /// When the URL is none that the client can use, or the system gives no randomness for the node's name.
    pub fn new(
        url: &RedisUrl,
        when_down: WhenDown,
        clock: Clock,
        metrics: &Metrics,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let (nudge, nudged) = mpsc::channel(MOST_NUDGES);
        Ok(Arc::new(Self {
            link: Link::new(url, when_down, clock, FleetMetrics::register(metrics, registry))?,
            ledger: Ledger::new(hour_of(clock.now().utc_seconds)),
            clock,
            turns: Mutex::default(),
            nudge,
            nudged: tokio::sync::Mutex::new(nudged),
        }))
    }

    /// An account of which this node may use what it leases.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        Arc::new(Account::leased(Arc::clone(&self.link.standing)))
    }

    /// Makes sure that what a call needs is leased: `None` when it is, or when asking would not help; otherwise to be
    /// awaited before the call is admitted.
    pub(crate) fn cover(self: &Arc<Self>, tenant: &Arc<Tenant>, ask: &Ask) -> Option<Asking> {
        let ask = *ask;
        self.asking(tenant, move |account, limits, clock| account.cover(limits, &ask, clock.now()))
    }

    /// Makes sure that what an open call's hold is to grow by is leased, like [`Fleet::cover`].
    pub(crate) fn cover_growth(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        more: Tokens,
        prices: Prices,
    ) -> Option<Asking> {
        self.asking(tenant, move |account, limits, clock| {
            account.cover_growth(limits, more, &prices, clock.now())
        })
    }

    fn asking(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        cover: impl Fn(&Account, &Limits, &Clock) -> Cover + Send + Sync + 'static,
    ) -> Option<Asking> {
        let ticket = match cover(&tenant.account, tenant.limits(), &self.clock) {
            Cover::Enough => return None,
            Cover::Low => {
                // A full queue is emptied by the renewal that comes anyway.
                drop(self.nudge.try_send(Arc::clone(tenant)));
                return None;
            }
            Cover::Short(ticket) => ticket,
        };
        let (fleet, tenant) = (Arc::clone(self), Arc::clone(tenant));
        Some(Asking::new(async move {
            let connection = fleet.link.connection();
            let asked = timeout(DEADLINE, async {
                let mut ticket = ticket;
                for _ in 0..MOST_ASKS {
                    fleet.replenish(&tenant, ticket).await;
                    match cover(&tenant.account, tenant.limits(), &fleet.clock) {
                        Cover::Short(next) => ticket = next,
                        Cover::Enough | Cover::Low => return,
                    }
                }
            });
            if asked.await.is_err()
                && let Some(connection) = connection
            {
                // Who waits for this long is answered as when the store is down, and nobody waits again.
                fleet.link.fail(&connection, StoreError::Timeout(DEADLINE));
            }
        }))
    }

    /// Asks the store for a larger lease, unless a request that carried this call's need has been answered meanwhile.
    async fn replenish(&self, tenant: &Tenant, ticket: Ticket) {
        let turn = self.turn(&tenant.name);
        let _turn = turn.lock().await;
        if tenant.account.is_answered(ticket) {
            return;
        }
        if let Some(connection) = self.link.connection()
            && let Err(error) = self.request(&connection, tenant, Occasion::Asked).await
        {
            self.link.fail(&connection, error);
        }
    }

    /// Reports what a tenant used, and takes what the store leases.
    async fn request(
        &self,
        connection: &Connection,
        tenant: &Tenant,
        occasion: Occasion,
    ) -> Result<(), StoreError> {
        let account = &tenant.account;
        let Some(request) = account.lease_request(tenant.limits(), occasion, self.clock.now()) else {
            return Ok(());
        };
        let reply = self.link.lease(connection, &tenant.name, &request).await?;
        if let Some(reply) = reply {
            account.lease_reply(&request, &reply, LEASE_LIFETIME, self.clock.now());
        }
        Ok(())
    }

    /// [`Fleet::request`] for all tenants of which there is something to say.
    async fn renew(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        gateway: &Gateway,
        occasion: Occasion,
    ) -> Result<(), StoreError> {
        let snapshot = gateway.snapshot();
        let now = self.clock.now();
        let due = |tenant: &&Arc<Tenant>| tenant.account.is_lease_due(occasion, now);
        let mut due: Vec<_> = snapshot.tenants().iter().filter(due).collect();
        if occasion == Occasion::Leaving {
            // What was used and is not reported yet goes first: there may not be time for all.
            due.sort_by_cached_key(|tenant| !tenant.account.is_lease_due(Occasion::Renewal, now));
        }
        let mut renewals = JoinSet::new();
        for tenant in due {
            if renewals.len() >= MOST_RENEWALS {
                finished(renewals.join_next().await)?;
            }
            let (fleet, connection, tenant) = (Arc::clone(self), Arc::clone(connection), Arc::clone(tenant));
            renewals.spawn(async move {
                let turn = fleet.turn(&tenant.name);
                let _turn = turn.lock().await;
                fleet.request(&connection, &tenant, occasion).await
            });
        }
        while !renewals.is_empty() {
            finished(renewals.join_next().await)?;
        }
        // Turns that nobody has or waits for need not be remembered.
        self.turns.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        Ok(())
    }

    /// Connects, reports all that this node knows, and then lets calls count on the store.
    pub async fn join(self: &Arc<Self>, gateway: &Gateway) {
        let joining = async {
            let connection = self.link.connect().await?;
            self.link.beat(&connection).await?;
            self.renew(&connection, gateway, Occasion::Joining).await?;
            Ok(connection)
        };
        match joining.await {
            Ok(connection) => self.link.up(connection),
            Err(error) => self.link.down(&error),
        }
    }

    /// Keeps the connection up, the leases renewed and the ledger written, for ever.
    pub async fn run(self: Arc<Self>, gateway: Arc<Gateway>) {
        tokio::join!(self.supply(&gateway), self.keep_ledger(&gateway));
    }

    async fn keep_ledger(&self, gateway: &Gateway) {
        let mut writes = interval(ledger::INTERVAL);
        writes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            writes.tick().await;
            let connection = self.link.connection();
            if let Err(error) = self.ledger.keep(&self.link, connection.as_ref(), gateway).await
                && let Some(connection) = &connection
            {
                self.link.fail(connection, error);
            }
        }
    }

    /// Answers from the ledger: this node's last call included, and of the others all but the last second.
    ///
    /// # Errors
    /// When the store is down.
    pub async fn usage(&self, gateway: &Gateway, query: &Query) -> Result<Report, StoreError> {
        let connection = self.link.connection().ok_or_else(|| self.down())?;
        self.ledger.keep(&self.link, Some(&connection), gateway).await?;
        ledger::read(connection.multiplexed(), query, self.clock.now().utc_seconds).await
    }

    async fn supply(self: &Arc<Self>, gateway: &Gateway) {
        loop {
            match self.link.connection() {
                None => {
                    tokio::time::sleep(RECONNECT).await;
                    self.join(gateway).await;
                }
                Some(connection) => {
                    if let Err(error) = self.stay(&connection, gateway).await {
                        self.link.fail(&connection, error);
                    }
                }
            }
        }
    }

    /// Beats and renews until the connection fails, here or where a call uses it.
    async fn stay(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        gateway: &Gateway,
    ) -> Result<(), StoreError> {
        let mut nudged = self.nudged.lock().await;
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = self.link.failed() => return Ok(()),
                Some(tenant) = nudged.recv() => {
                    let turn = self.turn(&tenant.name);
                    let _turn = turn.lock().await;
                    self.request(connection, &tenant, Occasion::Renewal).await?;
                }
                _ = beats.tick() => {
                    if self.link.beat(connection).await? == Memory::Lost {
                        self.renew(connection, gateway, Occasion::Joining).await?;
                    }
                    if renewed.elapsed() >= RENEWAL {
                        self.renew(connection, gateway, Occasion::Renewal).await?;
                        renewed = Instant::now();
                    }
                }
            }
        }
    }

    /// Writes the last of what was used and gives back what is leased, when no calls are open any more.
    pub async fn leave(self: &Arc<Self>, gateway: &Gateway) {
        let leaving = timeout(LEAVE, async {
            let connection = match self.link.connection() {
                Some(connection) => connection,
                // It may be back, and this is the last chance.
                None => {
                    self.join(gateway).await;
                    self.link.connection().ok_or_else(|| self.down())?
                }
            };
            // Where the one fails, the other may not.
            let kept = self.ledger.keep(&self.link, Some(&connection), gateway).await;
            self.renew(&connection, gateway, Occasion::Leaving).await?;
            self.link.leave(&connection).await?;
            kept
        });
        match leaving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = %error,
                "leases are left to expire, and what was used since the ledger was last written may miss in it"
            ),
            Err(_elapsed) => tracing::warn!(
                "the store took too long: leases are left to expire, and what was used since the ledger was last written may miss in it"
            ),
        }
    }

    fn down(&self) -> StoreError {
        StoreError::Down(self.link.status().trouble.unwrap_or_default())
    }

    /// The state of the store, for `/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        let link = self.link.status();
        json!({
            "url": self.link.url.to_string(),
            "up": link.trouble.is_none(),
            "whenDown": match self.link.when_down {
                WhenDown::Degraded => "degraded",
                WhenDown::Refuse => "refuse",
            },
            "downSince": link.trouble.as_ref().map(|_| utc(link.since)),
            "problem": link.trouble,
            "node": &*self.link.node,
            "nodes": link.nodes,
        })
    }

    fn turn(&self, tenant: &TenantName) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.turns.lock().entry(tenant.clone()).or_default())
    }
}

/// What a renewal came to. One that panicked took no lease, and the next one makes up for it.
fn finished(
    renewal: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>,
) -> Result<(), StoreError> {
    match renewal {
        Some(Ok(result)) => result,
        Some(Err(error)) => {
            tracing::error!(error = %error, "a lease was not renewed");
            Ok(())
        }
        None => Ok(()),
    }
}
