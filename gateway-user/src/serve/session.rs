//! What the calls of one connection share.

use std::sync::Arc;

use super::activity::Activity;
use super::worker::WorkerState;
use crate::gateway::Gateway;
use crate::kernel::Caller;

/// One connection, as its calls see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) worker: Arc<WorkerState>,
    /// Who connected: the peer, or whom a trusted balancer's PROXY header names.
    pub(crate) caller: Caller,
    pub(super) activity: Arc<Activity>,
}

/// A call that is open on a connection, so that the connection is not idle. Clones are of the same call.
#[derive(Debug, Clone)]
pub(crate) struct OpenCall {
    _shared: Arc<OpenCallGuard>,
}

#[derive(Debug)]
struct OpenCallGuard(Arc<Activity>);

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
