//! What the calls of one connection share: the gateway, the worker that they run on, and the connection itself.

mod activity;
mod turns;

use std::sync::Arc;

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
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) pool: Arc<Pool>,
    pub(crate) relays: Relays,
    pub(crate) request_ids: RequestIds,
    pub(crate) reports: Reports,
    turns: Turns,
}

/// A call that is open on a connection, so that the connection is not idle. Clones are of the same call.
#[derive(Debug, Clone)]
pub(crate) struct OpenCall {
    _shared: Arc<OpenCallGuard>,
}

#[derive(Debug)]
struct OpenCallGuard(Arc<Activity>);

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
        })
    }

    /// Lets the streams under way go before a new call.
    pub(crate) async fn streams_first(&self) {
        if self.relays.any() {
            self.turns.take().await;
        }
    }
}

impl Session {
    /// Marks the connection as busy for as long as the call is.
    pub(crate) fn open_call(&self) -> OpenCall {
        self.activity.call_started();
        OpenCall { _shared: Arc::new(OpenCallGuard(Arc::clone(&self.activity))) }
    }
}

impl Drop for OpenCallGuard {
    fn drop(&mut self) {
        self.0.call_ended();
    }
}
