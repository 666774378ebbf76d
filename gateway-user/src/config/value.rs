//! Single values, from TOML to what the program holds.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;
use toml::value::Datetime;

use super::error::{Problem, meant};
use crate::units::{NanoDollars, TokenPrice};

pub(crate) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Problem> {
    value.as_str().ok_or_else(|| mistyped(value, "a text"))
}

/// A text with something in it that can stand in a header.
pub(crate) fn printable(value: &DeValue<'_>) -> Result<String, Problem> {
    match text(value)? {
        text if text.is_empty() || text.chars().any(char::is_control) => Err(Problem::Text),
        text => Ok(text.to_owned()),
    }
}

pub(crate) fn path(value: &DeValue<'_>) -> Result<PathBuf, Problem> {
    printable(value).map(PathBuf::from)
}

pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| mistyped(value, "true or false"))
}

/// One of a few words, each with what it means.
pub(crate) fn choice<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Problem> {
    move |value| {
        let found = text(value)?;
        choices.iter().find(|(word, _)| *word == found).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let allowed: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            Problem::Choice { found: found.to_owned(), nearest: meant(found, &allowed), allowed }
        })
    }
}

/// A moment, with its offset from UTC (RFC 3339).
pub(crate) fn moment(value: &DeValue<'_>) -> Result<Datetime, Problem> {
    match value.as_datetime() {
        Some(moment @ Datetime { date: Some(_), time: Some(_), offset: Some(_) }) => Ok(*moment),
        Some(_) | None => Err(mistyped(value, "a date and time such as 2026-01-31T12:00:00Z")),
    }
}

/// A whole number from `least` to `most`.
pub(crate) fn whole(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, Problem> {
    let number = value.as_integer().ok_or_else(|| mistyped(value, "a whole number"))?;
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(Problem::Range { found: number.to_string(), least, most }),
    }
}

pub(crate) fn count32(value: &DeValue<'_>) -> Result<NonZeroU32, Problem> {
    let number = whole(value, 1, u32::MAX.into())?;
    u32::try_from(number).ok().and_then(NonZeroU32::new).ok_or(Problem::Empty)
}

pub(crate) fn count64(value: &DeValue<'_>) -> Result<NonZeroU64, Problem> {
    NonZeroU64::new(whole(value, 1, MOST_TOKENS)?).ok_or(Problem::Empty)
}

/// A number of things that this process holds at once.
pub(crate) fn count_of(most: u64) -> impl Fn(&DeValue<'_>) -> Result<NonZeroUsize, Problem> {
    move |value| {
        let number = whole(value, 1, most)?;
        usize::try_from(number).ok().and_then(NonZeroUsize::new).ok_or(Problem::Empty)
    }
}

/// A duration such as `"500ms"`, `"10s"`, `"2m"` or `"1h"`; from a millisecond to a day.
pub(crate) fn duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let text = text(value)?;
    parse_duration(text)
        .filter(|duration| (SHORTEST..=LONGEST).contains(duration))
        .ok_or_else(|| Problem::Duration(text.to_owned()))
}

/// [`duration`], or `"0s"`.
pub(crate) fn duration_or_zero(value: &DeValue<'_>) -> Result<Duration, Problem> {
    if value.as_str().and_then(parse_duration) == Some(Duration::ZERO) {
        return Ok(Duration::ZERO);
    }
    duration(value)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

pub(crate) fn address(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    let text = text(value)?;
    text.parse().map_err(|_syntax: std::net::AddrParseError| Problem::Address(text.to_owned()))
}

/// A network, or an address as the network of it alone; bits beyond the prefix are cleared.
pub(crate) fn network(value: &DeValue<'_>) -> Result<IpNet, Problem> {
    let text = text(value)?;
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_syntax| Problem::Network(text.to_owned()))
}

/// Dollars up to a billion, to the nearest billionth.
pub(crate) fn nano_dollars(value: &DeValue<'_>) -> Result<NanoDollars, Problem> {
    money(value, 9, 1_000_000_000).map(NanoDollars::new)
}

/// Dollars for a million tokens, up to a million, to the nearest millionth.
pub(crate) fn token_price(value: &DeValue<'_>) -> Result<TokenPrice, Problem> {
    money(value, 6, 1_000_000).map(TokenPrice::from_pico_dollars)
}

/// The digits are read as they are written, so that no float comes between.
fn money(value: &DeValue<'_>, decimals: u32, most: u64) -> Result<u64, Problem> {
    let text = match (value.as_float(), value.as_integer()) {
        (Some(float), _) => float.as_str(),
        (None, Some(integer)) if integer.radix() == 10 => integer.as_str(),
        (None, Some(_) | None) => return Err(mistyped(value, "an amount of dollars, as a decimal number")),
    };
    scaled(text, decimals)
        .filter(|units| *units <= most * 10u64.pow(decimals))
        .ok_or_else(|| Problem::Dollars { found: text.to_owned(), most })
}

/// The decimal number `text` times ten to the power of `decimals`, to the nearest whole number.
fn scaled(text: &str, decimals: u32) -> Option<u64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let mantissa = mantissa.strip_prefix('+').unwrap_or(mantissa);
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = integer.bytes().chain(fraction.bytes());
    if integer.is_empty() || !digits.clone().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let kept = i64::try_from(integer.len()).ok()? + i64::from(exponent) + i64::from(decimals);
    if kept > MOST_DIGITS {
        // More digits than any amount in bounds has, unless they are all zeros.
        return digits.all(|digit| digit == b'0').then_some(0);
    }
    let mut units = 0u128;
    for _ in 0..kept {
        units = units.checked_mul(10)?.checked_add(u128::from(digits.next().unwrap_or(b'0') - b'0'))?;
    }
    let next = if kept < 0 { b'0' } else { digits.next().unwrap_or(b'0') };
    u64::try_from(units + u128::from(next >= b'5')).ok()
}

fn mistyped(value: &DeValue<'_>, expected: &'static str) -> Problem {
    Problem::Type { expected, found: value.type_str() }
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What a float can still tell apart in a metric, and more than all models of a year.
const MOST_TOKENS: u64 = 1 << 53;
const MOST_DIGITS: i64 = 38;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeValue;

    use super::*;

    fn read<T>(toml: &str, read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>) -> Result<T, String> {
        read(DeValue::parse(toml).unwrap().get_ref()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(read("'500ms'", duration), Ok(Duration::from_millis(500)));
        assert_eq!(read("'10s'", duration), Ok(Duration::from_secs(10)));
        assert_eq!(read("'2m'", duration), Ok(Duration::from_secs(120)));
        assert_eq!(read("'24h'", duration), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "''",
            "'10'",
            "'s'",
            "'0s'",
            "'25h'",
            "'-1s'",
            "'1.5s'",
            "'10 s'",
            "'99999999999999999999s'",
            "'9é'",
        ] {
            assert!(read(wrong, duration).unwrap_err().contains("such as \"500ms\""), "{wrong}");
        }
        assert_eq!(read("'0s'", duration_or_zero), Ok(Duration::ZERO));
        assert_eq!(read("'1s'", duration_or_zero), Ok(Duration::from_secs(1)));
        assert!(read("'0'", duration_or_zero).is_err());
        assert_eq!(read("10", duration), Err("must be a text, found integer".to_owned()));
    }

    #[test]
    fn money_is_read_to_the_digit() {
        assert_eq!(read("50.0", nano_dollars), Ok(NanoDollars::new(50_000_000_000)));
        assert_eq!(read("50", nano_dollars), Ok(NanoDollars::new(50_000_000_000)));
        assert_eq!(read("1_000.5", nano_dollars), Ok(NanoDollars::new(1_000_500_000_000)));
        assert_eq!(read("0.1", nano_dollars), Ok(NanoDollars::new(100_000_000)));
        assert_eq!(read("1e-3", nano_dollars), Ok(NanoDollars::new(1_000_000)));
        assert_eq!(read("2.5E2", nano_dollars), Ok(NanoDollars::new(250_000_000_000)));
        assert_eq!(read("1e9", nano_dollars), Ok(NanoDollars::new(1_000_000_000_000_000_000)));
        assert_eq!(read("0.075", token_price), Ok(TokenPrice::from_pico_dollars(75_000)));
    }

    #[test]
    fn money_takes_the_nearest_unit() {
        assert_eq!(read("0.0000000004", nano_dollars), Ok(NanoDollars::ZERO));
        assert_eq!(read("0.0000000005", nano_dollars), Ok(NanoDollars::new(1)));
        assert_eq!(read("0.9999999999", nano_dollars), Ok(NanoDollars::new(1_000_000_000)));
        assert_eq!(read("9e-11", nano_dollars), Ok(NanoDollars::ZERO));
        assert_eq!(read("1e-2000000", nano_dollars), Ok(NanoDollars::ZERO));
        assert_eq!(read("0e2000000", nano_dollars), Ok(NanoDollars::ZERO));
    }

    #[test]
    fn money_is_positive_and_sane() {
        for wrong in ["-1", "-0.5", "nan", "inf", "-inf", "1e10", "1000000000.000000001", "1e2000000", "0x10"]
        {
            assert!(read(wrong, nano_dollars).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(read("0x10", count32).unwrap().get(), 16);
        assert_eq!(read("0", count32), Err("must be between 1 and 4294967295, found 0".to_owned()));
        assert!(read("-1", count32).unwrap_err().ends_with("found -1"));
        assert!(read("4294967296", count32).is_err());
        assert!(read("'1'", count32).unwrap_err().starts_with("must be a whole number"));
    }

    #[test]
    fn networks_are_cut_to_their_prefix() {
        assert_eq!(read("'10.1.2.3/8'", network).unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(read("'::1'", network).unwrap().to_string(), "::1/128");
        assert!(read("'10.0.0.0/33'", network).is_err());
    }

    proptest! {
        #[test]
        fn any_amount_survives_writing_and_reading(units in 0..=1_000_000_000_000_000_000u64) {
            let text = format!("{}.{:09}", units / 1_000_000_000, units % 1_000_000_000);
            prop_assert_eq!(read(&text, nano_dollars), Ok(NanoDollars::new(units)));
        }

        #[test]
        fn no_number_upsets_the_reader(text in "[+-]?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,12})?") {
            if let Ok(value) = DeValue::parse(&text) {
                let most = NanoDollars::new(1_000_000_000_000_000_000);
                prop_assert!(nano_dollars(value.get_ref()).unwrap_or_default() <= most);
            }
        }
    }
}
