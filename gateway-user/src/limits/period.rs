//! Calendar periods of quotas: each starts where UTC truncated to its unit does.

use std::fmt;

use crate::units::{NanoDollars, Tokens};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long a quota lasts before it starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From the full hour.
    Hourly,
    /// From midnight.
    Daily,
    /// From Monday's midnight (ISO 8601).
    Weekly,
    /// From midnight of the first of the month.
    Monthly,
    /// From midnight of the first of January.
    Yearly,
}

impl Period {
    /// Every period, shortest first; a period's place here is [`Period::index`].
    pub const ALL: [Self; 5] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The place in [`Period::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in configuration, metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The first and the first-no-longer second of the period that holds a moment, both since 1970-01-01 UTC.
    #[must_use]
    pub const fn around(self, utc_seconds: u64) -> (u64, u64) {
        let day = utc_seconds / DAY;
        match self {
            Self::Hourly => truncated(utc_seconds, 0, HOUR),
            Self::Daily => truncated(utc_seconds, 0, DAY),
            // 1970-01-01 was a Thursday, three days after a Monday.
            Self::Weekly => truncated(utc_seconds, 3 * DAY, 7 * DAY),
            Self::Monthly => {
                let (year, month, _) = date_of(day);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (first_day(year, month) * DAY, first_day(next.0, next.1) * DAY)
            }
            Self::Yearly => {
                let (year, _, _) = date_of(day);
                (first_day(year, 1) * DAY, first_day(year + 1, 1) * DAY)
            }
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What may be used in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// So many tokens.
    Tokens {
        /// The most tokens, prompt and answer together.
        limit: Tokens,
        /// For how long.
        period: Period,
    },
    /// So much money.
    Spend {
        /// The most that the tokens may cost.
        limit: NanoDollars,
        /// For how long.
        period: Period,
    },
}

const fn truncated(utc_seconds: u64, offset: u64, unit: u64) -> (u64, u64) {
    let start = ((utc_seconds + offset) / unit * unit).saturating_sub(offset);
    (start, (utc_seconds + offset) / unit * unit + unit - offset)
}

/// The year, month and day that hold a moment, in UTC.
#[must_use]
pub const fn civil_date(utc_seconds: u64) -> (u64, u64, u64) {
    date_of(utc_seconds / DAY)
}

/// The civil date of a day counted from 1970-01-01, by the era arithmetic of the Gregorian calendar: years
/// are taken to start in March, so that the leap day is the last of its year.
const fn date_of(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * march_month + 2) / 5 + 1)
}

/// The number of the first day of a month, counted from 1970-01-01; the inverse of [`date_of`].
const fn first_day(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // 2024-02-29T13:14:15Z, a Thursday in a leap year.
    const LEAP_DAY: u64 = 1_709_212_455;

    #[test]
    fn periods_start_at_the_truncated_unit() {
        assert_eq!(Period::Hourly.around(LEAP_DAY), (1_709_211_600, 1_709_215_200));
        assert_eq!(Period::Daily.around(LEAP_DAY), (1_709_164_800, 1_709_251_200));
        assert_eq!(Period::Weekly.around(LEAP_DAY), (1_708_905_600, 1_709_510_400));
        assert_eq!(Period::Monthly.around(LEAP_DAY), (1_706_745_600, 1_709_251_200));
        assert_eq!(Period::Yearly.around(LEAP_DAY), (1_704_067_200, 1_735_689_600));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(LEAP_DAY), (2024, 2, 29));
        assert_eq!(civil_date(LEAP_DAY + DAY), (2024, 3, 1));
        assert_eq!(civil_date(4_102_444_799), (2099, 12, 31));
    }

    #[test]
    fn the_epoch_itself_has_periods() {
        assert_eq!(Period::Yearly.around(0), (0, 365 * DAY));
        assert_eq!(Period::Weekly.around(0), (0, 4 * DAY));
    }

    proptest! {
        #[test]
        fn a_period_holds_its_moment_and_the_next_starts_where_it_ends(seconds in 0_u64..8_000_000_000) {
            for period in Period::ALL {
                let (start, end) = period.around(seconds);
                prop_assert!(start <= seconds && seconds < end);
                prop_assert_eq!(period.around(end).0, end);
                prop_assert_eq!(period.around(start).1, end);
            }
        }
    }
}
