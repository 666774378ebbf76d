//! What an operator gives back to a tenant or charges beyond its calls, with a trace of it.

use std::fmt;

use super::{Key, Kind, Sums};
use crate::limits::Used;
use crate::names::TenantName;
use crate::units::{NanoDollars, Tokens};

/// One change of a tenant's books by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Whose books.
    pub tenant: TenantName,
    /// When, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// Tokens.
    pub tokens: Signed,
    /// Billionths of a dollar.
    pub cost: Signed,
    /// Why.
    pub note: Note,
}

/// An amount that is given back or charged. Counters never fall, so that the two are counted apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signed {
    /// One of the two is 0.
    given_back: u64,
    charged: u64,
}

/// Why an adjustment was made: text of one line that somebody can read in a year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(Box<str>);

/// When and why a row of the ledger was written that no call has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// When, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// Why.
    pub note: Box<str>,
}

/// More would be given back than was assumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "of what was assumed of {tenant}'s calls, {tokens} tokens and {cost} are not given back yet: more is given back only with \
     --force (\"force\": true)"
)]
pub struct BeyondAssumed {
    /// Whose books.
    pub tenant: TenantName,
    /// Tokens that can be given back.
    pub tokens: Tokens,
    /// Money that can be given back.
    pub cost: NanoDollars,
}

/// Why a text is no note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// There is nothing in it.
    #[error("the note is empty: say why the books are adjusted")]
    Empty,
    /// It is too long.
    #[error("the note has {0} characters, at most {MOST_CHARACTERS} are kept")]
    Long(usize),
    /// It has a line break, or another character that moves a cursor.
    #[error("the note must be one line without control characters")]
    Control,
}

/// The longest note.
const MOST_CHARACTERS: usize = 200;

impl Adjustment {
    /// What is charged.
    #[must_use]
    pub fn charged(&self) -> Used {
        used(self.tokens.charged, self.cost.charged)
    }

    /// What is given back.
    #[must_use]
    pub fn given_back(&self) -> Used {
        used(self.tokens.given_back, self.cost.given_back)
    }

    /// Checks that no more is given back than was assumed of a tenant's calls and is not given back yet. What was charged
    /// before may be given back, too.
    ///
    /// # Errors
    /// [`BeyondAssumed`] says how much could be given back.
    pub fn within_assumed(&self, of_tenant: &Sums) -> Result<(), BeyondAssumed> {
        let Sums { assumed_tokens, charged_tokens, given_back_tokens, .. } = of_tenant;
        let Sums { assumed_cost, charged_cost, given_back_cost, .. } = of_tenant;
        let tokens = assumed_tokens.saturating_add(*charged_tokens).saturating_sub(*given_back_tokens);
        let cost = assumed_cost.saturating_add(*charged_cost).saturating_sub(*given_back_cost);
        if self.tokens.given_back > tokens.get() || self.cost.given_back > cost.get() {
            return Err(BeyondAssumed { tenant: self.tenant.clone(), tokens, cost });
        }
        Ok(())
    }

    pub(crate) fn key(&self) -> Key {
        Key { tenant: self.tenant.clone(), deployment: None, model: None, kind: Kind::Adjusted }
    }

    pub(crate) fn sums(&self) -> Sums {
        Sums {
            given_back_tokens: Tokens::new(self.tokens.given_back),
            given_back_cost: NanoDollars::new(self.cost.given_back),
            charged_tokens: Tokens::new(self.tokens.charged),
            charged_cost: NanoDollars::new(self.cost.charged),
            ..Sums::default()
        }
    }

    pub(crate) fn trace(&self) -> Trace {
        Trace { at: self.at, note: self.note.0.clone() }
    }
}

impl Signed {
    /// So much is given back.
    #[must_use]
    pub const fn given_back(amount: u64) -> Self {
        Self { given_back: amount, charged: 0 }
    }

    /// So much is charged.
    #[must_use]
    pub const fn charged(amount: u64) -> Self {
        Self { given_back: 0, charged: amount }
    }

    /// What is charged, or, where it is below zero, given back.
    #[must_use]
    pub const fn of(amount: i64) -> Self {
        if amount < 0 {
            Self::given_back(amount.unsigned_abs())
        } else {
            Self::charged(amount.unsigned_abs())
        }
    }

    /// Nothing is changed.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.given_back == 0 && self.charged == 0
    }

    /// What is given back; 0 where something is charged.
    #[must_use]
    pub const fn amount_given_back(self) -> u64 {
        self.given_back
    }

    /// What is charged; 0 where something is given back.
    #[must_use]
    pub const fn amount_charged(self) -> u64 {
        self.charged
    }
}

impl Note {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is empty, too long or has control characters.
    pub fn new(text: &str) -> Result<Self, NoteError> {
        let text = text.trim();
        match text.chars().count() {
            0 => Err(NoteError::Empty),
            count if count > MOST_CHARACTERS => Err(NoteError::Long(count)),
            _ if text.chars().any(char::is_control) => Err(NoteError::Control),
            _ => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const fn used(tokens: u64, cost: u64) -> Used {
    Used { tokens: Tokens::new(tokens), output: Tokens::ZERO, cost: NanoDollars::new(cost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_short_line() {
        assert_eq!(Note::new(" brown-out of May 3rd ").unwrap().as_str(), "brown-out of May 3rd");
        assert_eq!(Note::new("  "), Err(NoteError::Empty));
        assert_eq!(Note::new("a\nb"), Err(NoteError::Control));
        assert!(Note::new(&"ü".repeat(MOST_CHARACTERS)).is_ok());
        assert_eq!(Note::new(&"x".repeat(MOST_CHARACTERS + 1)), Err(NoteError::Long(MOST_CHARACTERS + 1)));
    }

    #[test]
    fn what_is_given_back_and_what_is_charged_are_columns_of_their_own() {
        let adjustment = Adjustment {
            tenant: TenantName::new("acme").unwrap(),
            at: 1,
            tokens: Signed::of(-500),
            cost: Signed::of(20),
            note: Note::new("why").unwrap(),
        };
        let sums = adjustment.sums();
        assert_eq!((sums.given_back_tokens, sums.charged_tokens), (Tokens::new(500), Tokens::ZERO));
        assert_eq!((sums.given_back_cost, sums.charged_cost), (NanoDollars::ZERO, NanoDollars::new(20)));
        assert_eq!((sums.calls, sums.tokens(), sums.cost), (0, Tokens::ZERO, NanoDollars::ZERO));
        assert!(Signed::of(0).is_zero() && !Signed::of(-1).is_zero());
    }

    #[test]
    fn no_more_is_given_back_than_was_assumed_and_not_given_back_before() {
        let adjustment = |tokens, cost| Adjustment {
            tenant: TenantName::new("acme").unwrap(),
            at: 1,
            tokens: Signed::of(tokens),
            cost: Signed::of(cost),
            note: Note::new("why").unwrap(),
        };
        let books = Sums {
            assumed_tokens: Tokens::new(100),
            assumed_cost: NanoDollars::new(50),
            given_back_tokens: Tokens::new(70),
            charged_tokens: Tokens::new(10),
            ..Sums::default()
        };
        assert_eq!(adjustment(-40, -50).within_assumed(&books), Ok(()));
        assert_eq!(adjustment(1_000, 1_000).within_assumed(&books), Ok(()));
        for beyond in [adjustment(-41, 0), adjustment(0, -51)] {
            let said = beyond.within_assumed(&books).unwrap_err().to_string();
            assert!(
                said.starts_with("of what was assumed of acme's calls, 40 tokens and $0.000000050 are"),
                "{said}"
            );
        }
    }
}
