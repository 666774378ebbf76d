//! Who has used what: calls, tokens and money by hour, tenant, deployment, model and kind of answer.
//!
//! A call adds to the counters that Prometheus reads too ([`CostSeries`](crate::metrics::CostSeries)), so that the two
//! cannot disagree. A [`Pending`] takes what was added since it last looked and gives it to an hour; the store keeps it.

mod adjustment;
mod pending;
mod query;
mod report;
mod sums;

use crate::names::{DeploymentName, ModelName, TenantName};

pub use adjustment::{Adjustment, BeyondAssumed, Note, NoteError, Signed, Trace};
pub(crate) use pending::{ADJUSTMENTS_AT_ONCE, Counted, Pending, Row};
pub use query::{Dimension, Query, QueryError, Since};
pub(crate) use report::Summary;
pub use report::{Adjusted, Line, Report};
pub use sums::{Assumed, Booked, Column, Sums};

/// How long what was used is remembered.
pub const RETENTION_HOURS: u64 = 400 * 24;

/// What a figure of the ledger is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Who pays.
    pub tenant: TenantName,
    /// What was called; `None` for [`Kind::Recovered`] and [`Kind::Adjusted`].
    pub deployment: Option<DeploymentName>,
    /// The model behind it; `None` likewise.
    pub model: Option<ModelName>,
    /// How it was answered.
    pub kind: Kind,
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// In one piece.
    Single,
    /// As a stream.
    Stream,
    /// Nobody knows: the gateway was killed while the call was open, and all that it held counts as used.
    Recovered,
    /// No call: an operator gave back or charged something.
    Adjusted,
    /// A later version of the gateway has written the row, and this one does not know its kind.
    Other,
}

impl Kind {
    /// Every kind that this version writes; a kind's place here is its number in the database.
    pub const ALL: [Self; 4] = [Self::Single, Self::Stream, Self::Recovered, Self::Adjusted];

    /// The name in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Stream => "stream",
            Self::Recovered => "recovered",
            Self::Adjusted => "adjusted",
            Self::Other => "other",
        }
    }
}

/// The number of the hour that holds a moment, counted from 1970-01-01 UTC.
#[must_use]
pub const fn hour_of(utc_seconds: u64) -> u64 {
    utc_seconds / 3600
}
