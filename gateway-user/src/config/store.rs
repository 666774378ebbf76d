//! `[store]`: where quotas and the ledger are kept.

use std::fmt;
use std::path::{Path, PathBuf};

use http::Uri;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::document::Section;
use super::error::Problem;
use super::value;

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

impl Store {
    pub(super) fn read(section: &mut Section<'_>, folder: &Path) -> Self {
        let whens = value::choice(&[("degraded", WhenDown::Degraded), ("refuse", WhenDown::Refuse)]);
        Self {
            location: section
                .optional("url", |url| StoreLocation::read(url, folder))
                .unwrap_or_else(|| StoreLocation::Directory(folder.join(DEFAULT_DIRECTORY))),
            when_down: section.or("when_down", WhenDown::default(), whens),
        }
    }
}

impl StoreLocation {
    fn read(value: &DeValue<'_>, folder: &Path) -> Result<Self, Problem> {
        let text = value::printable(value)?;
        if let Some(path) = text.strip_prefix("file:") {
            // `file:///var/lib` is written too: an empty host (RFC 8089, 2).
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            return if path.is_empty() || path.starts_with("//") {
                Err(Problem::StoreUrl)
            } else {
                Ok(Self::Directory(folder.join(path)))
            };
        }
        let uri: Uri = text.parse().map_err(|_syntax: http::uri::InvalidUri| Problem::StoreUrl)?;
        let database = uri.path().trim_start_matches('/');
        let known = matches!(uri.scheme_str(), Some("redis" | "rediss"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && (database.is_empty() || database.parse::<u32>().is_ok());
        if known { Ok(Self::Redis(RedisUrl(Zeroizing::new(text)))) } else { Err(Problem::StoreUrl) }
    }
}

const DEFAULT_DIRECTORY: &str = "state";

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> Option<StoreLocation> {
        StoreLocation::read(&DeValue::String(url.into()), Path::new("/etc/gateway")).ok()
    }

    #[test]
    fn directories_start_from_the_configuration() {
        let directory = |path: &str| Some(StoreLocation::Directory(PathBuf::from(path)));
        assert_eq!(location("file:state"), directory("/etc/gateway/state"));
        assert_eq!(location("file:/var/lib/gateway"), directory("/var/lib/gateway"));
        assert_eq!(location("file:///var/lib/gateway"), directory("/var/lib/gateway"));
        for wrong in ["file:", "file://host/var", "state", "", "http://x", "redis:x", "redis://h/x"] {
            assert_eq!(location(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_redis_url_shows_no_password() {
        let Some(StoreLocation::Redis(url)) = location("rediss://me:p%40ss@redis.example:6380/0") else {
            panic!("a Redis URL was refused");
        };
        assert_eq!(url.to_string(), "rediss://…@redis.example:6380/0");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(url.reveal(), "rediss://me:p%40ss@redis.example:6380/0");
    }
}
