//! What the calls of one connection share: the gateway, the worker that they run on, and the connection itself.

mod activity;
mod turns;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::call::Reports;
use crate::gateway::Gateway;
use crate::kernel::Caller;
use crate::relay::Relays;
use crate::request_id::RequestIds;
use crate::upstream::pool::Pool;

pub(crate) use activity::Activity;
use turns::Turns;

/// One connection, as its calls see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) worker: Arc<WorkerState>,
    /// Who connected: the peer, or whom a trusted balancer's PROXY header names.
    pub(crate) caller: Caller,
    pub(crate) activity: Arc<Activity>,
    /// How long its caller may take nothing of an answer.
    pub(crate) idle_timeout: Duration,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) pool: Arc<Pool>,
    pub(crate) relays: Relays,
    pub(crate) request_ids: RequestIds,
    pub(crate) reports: Reports,
    turns: Turns,
    handshakes: Turns,
    bodies: Turns,
}

/// A call that is open on a connection, so that the connection is not idle. Clones are of the same call.
#[derive(Debug, Clone)]
pub(crate) struct OpenCall {
    shared: Arc<OpenCallGuard>,
}

#[derive(Debug)]
struct OpenCallGuard {
    activity: Arc<Activity>,
    /// The task of its stream, on HTTP/2.
    stream: OnceLock<AbortHandle>,
}

impl WorkerState {
    /// A worker's state before its first connection.
    ///
    /// # Errors
    /// When the system gives no random bytes for request ids.
    pub(crate) fn new(reports: Reports) -> Result<Self, getrandom::Error> {
        Ok(Self {
            pool: Arc::default(),
            relays: Relays::default(),
            request_ids: RequestIds::new()?,
            reports,
            turns: Turns::new(),
            handshakes: Turns::new(),
            bodies: Turns::new(),
        })
    }

    /// Lets the streams under way go before a new call.
    pub(crate) async fn streams_first(&self) {
        if self.relays.any() {
            self.turns.take().await;
        }
    }

    /// Runs every task that is ready before a new connection's TLS handshake, which takes many times as long as a call.
    pub(crate) async fn calls_first(&self) {
        self.handshakes.take().await;
    }

    /// Lets all that is ready go before the next piece of a long body, of which others bring some, too: one of them has a piece
    /// for every time that all others have their turn.
    pub(crate) async fn others_first(&self) {
        self.bodies.take().await;
    }
}

impl Session {
    /// Marks the connection as busy for as long as the call is.
    pub(crate) fn open_call(&self) -> OpenCall {
        self.activity.call_started();
        let activity = Arc::clone(&self.activity);
        OpenCall { shared: Arc::new(OpenCallGuard { activity, stream: OnceLock::new() }) }
    }
}

impl OpenCall {
    /// Notes the task that its HTTP/2 stream runs as. To be called once.
    pub(crate) fn runs_as(&self, stream: AbortHandle) {
        self.shared.stream.get_or_init(|| stream);
    }

    /// Waits before an answer. Meanwhile its connection counts as idle: it may have to make room for others.
    pub(crate) async fn wait(&self, time: Duration) {
        let _waiting = Waiting::of(&self.shared.activity);
        tokio::time::sleep(time).await;
    }

    /// The task of its HTTP/2 stream: aborted, it resets the stream and gives back all that the stream holds.
    pub(crate) fn stream(&self) -> Option<AbortHandle> {
        self.shared.stream.get().cloned()
    }
}

/// A call that waits, and does not count as one.
struct Waiting<'a>(&'a Activity);

impl<'a> Waiting<'a> {
    fn of(activity: &'a Activity) -> Self {
        activity.call_ended();
        Self(activity)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.call_started();
    }
}

impl Drop for OpenCallGuard {
    fn drop(&mut self) {
        self.activity.call_ended();
    }
}
