//! Tokens and money. Both are whole numbers in the books; floats exist only where a person reads or writes them.

use std::fmt;
use std::iter::Sum;

/// A count of model tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(u64);

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);
    /// More than any budget.
    pub const MAX: Self = Self(u64::MAX);

    /// A count of `tokens`.
    #[must_use]
    pub const fn new(tokens: u64) -> Self {
        Self(tokens)
    }

    /// A count of as many tokens as a buffer has bytes: the most that its text can encode to.
    #[must_use]
    pub fn from_bytes(bytes: usize) -> Self {
        Self(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// The bare number, for the wire, metrics and arithmetic with other units.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or [`Tokens::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The product, or [`Tokens::MAX`].
    #[must_use]
    pub const fn saturating_mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

/// An amount of money in billionths of a US dollar.
///
/// One token of the cheapest model costs tens of these, so that rounding a call up to a whole one changes no bill;
/// the largest amount is 18 billion dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoDollars(u64);

impl NanoDollars {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// More than any budget.
    pub const MAX: Self = Self(u64::MAX);

    /// An amount of `nanos` billionths of a dollar.
    #[must_use]
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The bare number of billionths of a dollar.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The amount in dollars, for people and metrics only.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people: 53 bits are enough")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The amount in dollars, every digit of it: `0.000012345`.
    #[must_use]
    pub fn decimal(self) -> String {
        format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }

    /// The sum, or [`NanoDollars::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for NanoDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.decimal())
    }
}

/// Reads an amount of dollars that may be below zero, in billionths: `-2.5`, `+0.000000001`, `12`.
///
/// Nothing where the text is no such number, has more than nine decimals or passes nine billion dollars.
#[must_use]
pub fn signed_nano_dollars(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 9 {
        return None;
    }
    let nanos: i64 = format!("{decimals:0<9}").parse().ok()?;
    let amount = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if negative { -amount } else { amount })
}

/// The price of one token, in trillionths of a dollar, which is the price of a million tokens in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenPrice(u64);

impl TokenPrice {
    /// A price of `picos` trillionths of a dollar a token: dollars per million tokens, times a million.
    #[must_use]
    pub const fn from_pico_dollars(picos: u64) -> Self {
        Self(picos)
    }

    /// The bare number of trillionths of a dollar a token.
    #[must_use]
    pub const fn pico_dollars(self) -> u64 {
        self.0
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prices {
    /// Of a prompt token that no cache held.
    pub input: TokenPrice,
    /// Of a prompt token that upstream read from its cache.
    pub cached_input: TokenPrice,
    /// Of an answer's token, reasoning included.
    pub output: TokenPrice,
}

impl Prices {
    /// The price of a call, rounded up to a whole billionth of a dollar.
    ///
    /// `cached` is the part of `input` that upstream read from its cache; more than `input` counts as all of it.
    #[must_use]
    pub fn cost(&self, input: Tokens, cached: Tokens, output: Tokens) -> NanoDollars {
        let cached = cached.min(input);
        let fresh = input.saturating_sub(cached);
        let picos =
            product(fresh, self.input) + product(cached, self.cached_input) + product(output, self.output);
        NanoDollars(u64::try_from(picos.div_ceil(1000)).unwrap_or(u64::MAX))
    }
    /// The most that a call can cost: no prompt token is cheaper for having been cached.
    #[must_use]
    pub fn cost_bound(&self, prompt: Tokens, output: Tokens) -> NanoDollars {
        Self { input: self.dearest_input(), ..*self }.cost(prompt, Tokens::ZERO, output)
    }

    /// The price of an input token, cached or not.
    #[must_use]
    pub fn dearest_input(&self) -> TokenPrice {
        self.input.max(self.cached_input)
    }
}

fn product(tokens: Tokens, price: TokenPrice) -> u128 {
    u128::from(tokens.0) * u128::from(price.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: Prices = Prices {
        input: TokenPrice::from_pico_dollars(150_000),
        cached_input: TokenPrice::from_pico_dollars(75_000),
        output: TokenPrice::from_pico_dollars(600_000),
    };

    #[test]
    fn a_million_tokens_cost_the_listed_price() {
        let million = Tokens::new(1_000_000);
        assert_eq!(MINI.cost(million, Tokens::ZERO, Tokens::ZERO), NanoDollars::new(150_000_000));
        assert_eq!(MINI.cost(million, million, Tokens::ZERO), NanoDollars::new(75_000_000));
        assert_eq!(MINI.cost(Tokens::ZERO, Tokens::ZERO, million), NanoDollars::new(600_000_000));
    }

    #[test]
    fn signed_dollars_are_read_to_the_digit() {
        for (text, nanos) in [
            ("0", 0),
            ("-2.5", -2_500_000_000),
            ("+0.000000001", 1),
            ("12", 12_000_000_000),
            ("9223372035.999999999", 9_223_372_035_999_999_999),
        ] {
            assert_eq!(signed_nano_dollars(text), Some(nanos), "{text}");
        }
        for text in ["", "-", "1.", ".5", "1e3", "--1", "1.0000000001", "9223372037", "$1", "1,5", "-é"] {
            assert_eq!(signed_nano_dollars(text), None, "{text}");
        }
    }

    #[test]
    fn a_fraction_of_a_nano_dollar_rounds_up() {
        let cheap = Prices { input: TokenPrice::from_pico_dollars(1), ..Prices::default() };
        assert_eq!(cheap.cost(Tokens::new(1), Tokens::ZERO, Tokens::ZERO), NanoDollars::new(1));
    }

    #[test]
    fn more_cached_than_read_is_all_cached() {
        assert_eq!(
            MINI.cost(Tokens::new(10), Tokens::new(99), Tokens::ZERO),
            MINI.cost(Tokens::new(10), Tokens::new(10), Tokens::ZERO)
        );
    }
}
