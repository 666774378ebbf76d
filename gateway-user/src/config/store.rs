//! `[store]`: where quotas and the ledger are kept.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// `[store]`: where quotas and the ledger are kept, and what happens while that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where it is.
    pub location: StoreLocation,
    /// What happens while a store shared by a fleet cannot be reached.
    pub when_down: WhenDown,
}

/// Where quotas and the ledger are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// `file:DIRECTORY`: an embedded database there, for one node.
    Directory(PathBuf),
    /// `redis://…` or `rediss://…`: shared by all nodes of a fleet.
    Redis(RedisUrl),
}

/// The URL of a Redis server. It may hold a password: shown, it is without one.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Zeroizing<String>);

impl RedisUrl {
    /// The URL with its credentials, for the client library.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://…@{host}"),
            (_, None) | (None, _) => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happens while the store cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// Calls are served from what is already leased and this node's share of the limit.
    #[default]
    Degraded,
    /// Calls are refused.
    Refuse,
}
