//! What a node and the fleet's store tell each other about one tenant.

use crate::limits::Now;
use crate::limits::period::Period;

/// Calls and tokens of the minute, then tokens and money of each period, then calls open at once.
pub const RESOURCES: usize = 3 + 2 * Period::ALL.len();

/// What a request to the fleet's store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Calls wait for it.
    Asked,
    /// Time has passed.
    Renewal,
    /// The store may have lost what it was told.
    Joining,
    /// The node stops: all that is unused is given back.
    Leaving,
}

/// All that was booked since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    /// Calls let in.
    pub calls: u64,
    /// Tokens added to the minute's window; never less than before.
    pub window_tokens: u64,
    /// Tokens of the periods; less than before where more was spent on a stream than it was settled at.
    pub tokens: u64,
    /// Nano-dollars of the periods.
    pub cost: u64,
}

/// A node's report of what a tenant used there and its request for another slice, for `lease.lua`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Later ones have higher numbers.
    pub sequence: u64,
    /// The last one that was answered; 0 before there was any.
    pub answered: u64,
    /// The generation of the store's state that was last seen; empty before the first answer.
    pub generation: Box<str>,
    /// All that was booked.
    pub used: Booked,
    /// What of it the store has acknowledged.
    pub acknowledged: Booked,
    /// Calls and tokens of the last minute on this node, for a store that knows nothing of it.
    pub window: [u64; 2],
    /// Tokens and nano-dollars of the running periods on this node, likewise.
    pub periods: [[u64; 2]; Period::ALL.len()],
    /// Of each resource.
    pub slices: [SliceRequest; RESOURCES],
    /// Nothing is to be leased: the tenant makes no calls here.
    pub idle: bool,
    /// Outage shares are wanted: the tenant made calls here not long ago.
    pub shares: bool,
    /// The node goes.
    pub leaving: bool,
    /// When it was made.
    pub made_at: Now,
}

/// One resource of a [`LeaseRequest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SliceRequest {
    /// `None` is no limit.
    pub limit: Option<u64>,
    /// What is leased, before the report.
    pub leased: u64,
    /// What of it open calls hold.
    pub held: u64,
    /// What has to be unused for waiting calls to be let in.
    pub need: u64,
    /// What the node would like to have unused.
    pub want: u64,
    /// The outage share that the node has, until it is answered.
    pub share: u64,
    /// A call was refused since the last request, because too little was leased.
    pub refused: bool,
}

/// The store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReply {
    /// The generation of the store's state: another one has lost what was reported before.
    pub generation: Box<str>,
    /// Of each resource.
    pub slices: [SliceReply; RESOURCES],
}

/// One resource of a [`LeaseReply`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SliceReply {
    /// What is leased now, after the report.
    pub leased: u64,
    /// What could still be leased.
    pub available: u64,
    /// What the node should have unused.
    pub target: u64,
    /// Until more is expected, in milliseconds; 0 when the need was met.
    pub wait_ms: u64,
    /// The outage share from now on.
    pub share: u64,
}
