//! What can be asked of the ledger.

use std::fmt;
use std::str::FromStr;

use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime};

use super::{Key, hour_of};
use crate::config::nearest;
use crate::names::{NameError, TenantName};
use crate::reply::utc;

/// A question: what was used since when, by whom, told apart by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// From when on.
    pub since: Since,
    /// What is told apart, in the order of the answer's columns.
    pub by: Vec<Dimension>,
    /// Of this tenant only.
    pub tenant: Option<TenantName>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So many hours ago.
    Hours(u64),
    /// From a moment on, in seconds since 1970-01-01 UTC.
    Moment(u64),
}

/// What use can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Who pays.
    Tenant,
    /// What was called.
    Deployment,
    /// The model behind it.
    Model,
    /// Whether the answer came in one piece or as a stream.
    Kind,
    /// The hour, in UTC.
    Hour,
    /// The day, in UTC.
    Day,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The start is no time.
    #[error("`{0}` is no start: write 12h, 7d, 4w, 2026-01-31 or 2026-01-31T12:00:00Z")]
    Since(String),
    /// That is nothing that use is told apart by.
    #[error("`{found}` is no column{}; there are {}", nearest.map_or_else(String::new, |n| format!(", did you mean `{n}`?")), Dimension::names())]
    Dimension {
        /// What was asked for.
        found: String,
        /// What looks most like it.
        nearest: Option<&'static str>,
    },
    /// A column was asked for twice.
    #[error("`{0}` is named twice")]
    Twice(&'static str),
    /// The tenant's name is none.
    #[error("the tenant's name {0}")]
    Tenant(#[from] NameError),
    /// There is no such parameter.
    #[error("`{0}` is no parameter; there are since, by and tenant")]
    Parameter(String),
}

impl Query {
    /// Reads a query string, in which everything may be absent.
    ///
    /// # Errors
    /// What in it cannot be answered.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "since" => parsed.since = value.parse()?,
                "by" => parsed.by = Dimension::list(&value)?,
                "tenant" => parsed.tenant = Some(TenantName::new(&value)?),
                _ => return Err(QueryError::Parameter(key.into_owned())),
            }
        }
        Ok(parsed)
    }

    /// The query string that says the same.
    #[must_use]
    pub fn to_query_string(&self) -> String {
        let by: Vec<_> = self.by.iter().map(|dimension| dimension.as_str()).collect();
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("since", &self.since.to_string()).append_pair("by", &by.join(","));
        if let Some(tenant) = &self.tenant {
            query.append_pair("tenant", tenant.as_str());
        }
        query.finish()
    }
}

impl Default for Query {
    fn default() -> Self {
        Self {
            since: Since::Hours(7 * 24),
            by: vec![Dimension::Tenant, Dimension::Deployment, Dimension::Model],
            tenant: None,
        }
    }
}

impl Since {
    /// The first hour that counts, which is counted whole.
    #[must_use]
    pub const fn hour(self, utc_seconds: u64) -> u64 {
        match self {
            Self::Hours(hours) => hour_of(utc_seconds).saturating_sub(hours),
            Self::Moment(moment) => hour_of(moment),
        }
    }
}

impl FromStr for Since {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let wrong = || QueryError::Since(text.to_owned());
        for (unit, hours) in [('h', 1), ('d', 24), ('w', 7 * 24)] {
            if let Some(number) = text.strip_suffix(unit) {
                let number: u64 = number.parse().map_err(|_syntax: std::num::ParseIntError| wrong())?;
                return number.checked_mul(hours).map(Self::Hours).ok_or_else(wrong);
            }
        }
        let moment = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_no_moment| Date::parse(text, &Iso8601::DATE).map(|date| date.midnight().assume_utc()))
            .map_err(|_neither: time::error::Parse| wrong())?;
        u64::try_from(moment.unix_timestamp()).map(Self::Moment).map_err(|_before_1970| wrong())
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hours(hours) => write!(f, "{hours}h"),
            Self::Moment(moment) => f.write_str(&utc(*moment)),
        }
    }
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 6] =
        [Self::Tenant, Self::Deployment, Self::Model, Self::Kind, Self::Hour, Self::Day];

    /// The column's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Deployment => "deployment",
            Self::Model => "model",
            Self::Kind => "kind",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Reads a list with commas between; an empty one tells nothing apart.
    ///
    /// # Errors
    /// When a name is none, or named twice.
    pub fn list(text: &str) -> Result<Vec<Self>, QueryError> {
        let mut list = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let dimension: Self = name.parse()?;
            if list.contains(&dimension) {
                return Err(QueryError::Twice(dimension.as_str()));
            }
            list.push(dimension);
        }
        Ok(list)
    }

    /// What a row of the ledger has in this column; nothing where nobody knows.
    pub(super) fn of(self, hour: u64, key: &Key) -> String {
        match self {
            Self::Tenant => key.tenant.to_string(),
            Self::Deployment => key.deployment.as_ref().map_or_else(String::new, ToString::to_string),
            Self::Model => key.model.as_ref().map_or_else(String::new, ToString::to_string),
            Self::Kind => key.kind.as_str().to_owned(),
            Self::Hour => utc(hour * 3600),
            Self::Day => utc(hour * 3600).split('T').next().unwrap_or_default().to_owned(),
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for Dimension {
    type Err = QueryError;

    fn from_str(name: &str) -> Result<Self, QueryError> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == name).ok_or_else(|| {
            QueryError::Dimension {
                found: name.to_owned(),
                nearest: nearest(name, Self::ALL.iter().map(|dimension| dimension.as_str())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_ages_days_and_moments() {
        for (text, since) in [
            ("12h", Since::Hours(12)),
            ("7d", Since::Hours(168)),
            ("4w", Since::Hours(672)),
            ("2024-02-29", Since::Moment(1_709_164_800)),
            ("2024-02-29T13:14:15Z", Since::Moment(1_709_212_455)),
            ("2024-02-29T14:14:15+01:00", Since::Moment(1_709_212_455)),
        ] {
            assert_eq!(text.parse(), Ok(since), "{text}");
        }
        for wrong in [
            "",
            "d",
            "7",
            "-1d",
            "7 d",
            "7m",
            "yesterday",
            "2024-02-30",
            "1969-01-01",
            "99999999999999999999h",
        ] {
            assert_eq!(wrong.parse::<Since>(), Err(QueryError::Since(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn a_query_survives_its_own_text() {
        for query in ["", "since=2024-02-29&by=day,kind&tenant=acme", "by="] {
            let query = Query::parse(query).unwrap();
            assert_eq!(Query::parse(&query.to_query_string()), Ok(query));
        }
        assert_eq!(Query::parse("by=").unwrap().by, []);
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let said = |query| Query::parse(query).unwrap_err().to_string();
        assert_eq!(
            said("by=tenat"),
            "`tenat` is no column, did you mean `tenant`?; there are tenant, deployment, model, kind, hour, day"
        );
        assert_eq!(said("by=day,day"), "`day` is named twice");
        assert_eq!(said("untill=1d"), "`untill` is no parameter; there are since, by and tenant");
        assert!(said("tenant=a%20b").starts_with("the tenant's name may hold only"));
    }
}
