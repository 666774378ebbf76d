//! The figures of the ledger, by column.

use crate::limits::OpenUse;
use crate::meter::Usage;
use crate::units::{NanoDollars, Tokens};

/// One call as it is booked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    /// Its tokens.
    pub usage: Usage,
    /// What they cost.
    pub cost: NanoDollars,
    /// The part of both that nobody saw.
    pub assumed: Assumed,
}

/// The part of a booked call that nobody saw; the call's own figures contain it.
///
/// Neither did upstream report these tokens nor did they pass through the gateway: the call timed out, its caller hung up
/// before the answer, or the gateway was killed. The default is a call of which everything was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Assumed {
    /// Prompt and output tokens.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoDollars,
}

/// What calls have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that used anything.
    pub calls: u64,
    /// Their prompts, cached parts included.
    pub prompt: Tokens,
    /// The parts of the prompts that upstream read from its cache.
    pub cached_prompt: Tokens,
    /// Their answers, reasoning included.
    pub completion: Tokens,
    /// The parts of the answers that were reasoning.
    pub reasoning: Tokens,
    /// What all of it cost.
    pub cost: NanoDollars,
    /// The part of the tokens that nobody saw, see [`Assumed`].
    pub assumed_tokens: Tokens,
    /// The part of the cost that these tokens are.
    pub assumed_cost: NanoDollars,
    /// Tokens that operators gave back; no other figure is smaller for them.
    pub given_back_tokens: Tokens,
    /// Money that operators gave back.
    pub given_back_cost: NanoDollars,
    /// Tokens that operators charged beyond those of calls.
    pub charged_tokens: Tokens,
    /// Money that operators charged.
    pub charged_cost: NanoDollars,
}

impl Sums {
    /// Prompts and answers together.
    #[must_use]
    pub const fn tokens(&self) -> Tokens {
        self.prompt.saturating_add(self.completion)
    }

    /// What operators charged, less what they gave back.
    #[must_use]
    pub fn adjusted_tokens(&self) -> i64 {
        let net = i128::from(self.charged_tokens.get()) - i128::from(self.given_back_tokens.get());
        i64::try_from(net).unwrap_or(if net < 0 { i64::MIN } else { i64::MAX })
    }

    /// What operators charged, less what they gave back, in dollars with every digit: `-0.000012345`.
    #[must_use]
    pub fn adjusted_dollars(&self) -> String {
        if self.given_back_cost > self.charged_cost {
            format!("-{}", self.given_back_cost.saturating_sub(self.charged_cost).decimal())
        } else {
            self.charged_cost.saturating_sub(self.given_back_cost).decimal()
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        Column::ALL.into_iter().for_each(|column| self.add(column, column.of(&other)));
        self
    }

    /// What has been added since it was `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let added = |column: Column| (column, column.of(self).saturating_sub(column.of(earlier)));
        Column::ALL.into_iter().map(added).collect()
    }

    /// Adds to a column.
    fn add(&mut self, column: Column, amount: u64) {
        let (tokens, cost) = (Tokens::new(amount), NanoDollars::new(amount));
        match column {
            Column::Calls => self.calls = self.calls.saturating_add(amount),
            Column::Prompt => self.prompt = self.prompt.saturating_add(tokens),
            Column::CachedPrompt => self.cached_prompt = self.cached_prompt.saturating_add(tokens),
            Column::Completion => self.completion = self.completion.saturating_add(tokens),
            Column::Reasoning => self.reasoning = self.reasoning.saturating_add(tokens),
            Column::Cost => self.cost = self.cost.saturating_add(cost),
            Column::AssumedTokens => self.assumed_tokens = self.assumed_tokens.saturating_add(tokens),
            Column::AssumedCost => self.assumed_cost = self.assumed_cost.saturating_add(cost),
            Column::GivenBackTokens => self.given_back_tokens = self.given_back_tokens.saturating_add(tokens),
            Column::GivenBackCost => self.given_back_cost = self.given_back_cost.saturating_add(cost),
            Column::ChargedTokens => self.charged_tokens = self.charged_tokens.saturating_add(tokens),
            Column::ChargedCost => self.charged_cost = self.charged_cost.saturating_add(cost),
        }
    }
}

impl FromIterator<(Column, u64)> for Sums {
    fn from_iter<I: IntoIterator<Item = (Column, u64)>>(amounts: I) -> Self {
        let mut sums = Self::default();
        amounts.into_iter().for_each(|(column, amount)| sums.add(column, amount));
        sums
    }
}

impl From<&OpenUse> for Sums {
    /// What calls are taken to have used that were open when the gateway was killed. What they held is assumed; what had
    /// passed on their streams was seen.
    fn from(open: &OpenUse) -> Self {
        let most = open.most();
        Self {
            calls: open.calls,
            prompt: open.prompt,
            completion: most.output,
            cost: most.cost,
            assumed_tokens: open.prompt.saturating_add(open.output),
            assumed_cost: open.cost,
            ..Self::default()
        }
    }
}

/// A column of the ledger. Its number stands for it in stored rows: no number is ever used for another column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// [`Sums::calls`].
    Calls = 1,
    /// [`Sums::prompt`].
    Prompt = 2,
    /// [`Sums::cached_prompt`].
    CachedPrompt = 3,
    /// [`Sums::completion`].
    Completion = 4,
    /// [`Sums::reasoning`].
    Reasoning = 5,
    /// [`Sums::cost`].
    Cost = 6,
    /// [`Sums::assumed_tokens`].
    AssumedTokens = 7,
    /// [`Sums::assumed_cost`].
    AssumedCost = 8,
    /// [`Sums::given_back_tokens`].
    GivenBackTokens = 9,
    /// [`Sums::given_back_cost`].
    GivenBackCost = 10,
    /// [`Sums::charged_tokens`].
    ChargedTokens = 11,
    /// [`Sums::charged_cost`].
    ChargedCost = 12,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 12] = [
        Self::Calls,
        Self::Prompt,
        Self::CachedPrompt,
        Self::Completion,
        Self::Reasoning,
        Self::Cost,
        Self::AssumedTokens,
        Self::AssumedCost,
        Self::GivenBackTokens,
        Self::GivenBackCost,
        Self::ChargedTokens,
        Self::ChargedCost,
    ];

    /// The number in stored rows.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The column with that number; nothing where this version has none.
    #[must_use]
    pub fn numbered(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.number() == number)
    }

    /// Its figure.
    #[must_use]
    pub const fn of(self, sums: &Sums) -> u64 {
        match self {
            Self::Calls => sums.calls,
            Self::Prompt => sums.prompt.get(),
            Self::CachedPrompt => sums.cached_prompt.get(),
            Self::Completion => sums.completion.get(),
            Self::Reasoning => sums.reasoning.get(),
            Self::Cost => sums.cost.get(),
            Self::AssumedTokens => sums.assumed_tokens.get(),
            Self::AssumedCost => sums.assumed_cost.get(),
            Self::GivenBackTokens => sums.given_back_tokens.get(),
            Self::GivenBackCost => sums.given_back_cost.get(),
            Self::ChargedTokens => sums.charged_tokens.get(),
            Self::ChargedCost => sums.charged_cost.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_number_of_its_own_and_holds_its_figure() {
        let mut numbers: Vec<_> = Column::ALL.map(Column::number).to_vec();
        numbers.dedup();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
        let sums: Sums = Column::ALL.into_iter().map(|column| (column, column.number() * 7)).collect();
        for column in Column::ALL {
            assert_eq!(Column::numbered(column.number()), Some(column));
            assert_eq!(column.of(&sums), column.number() * 7);
        }
        assert_eq!(sums.plus(sums).since(&sums), sums);
        assert_eq!(Column::numbered(13), None);
    }

    #[test]
    fn of_calls_that_were_open_what_they_held_is_assumed() {
        let open = OpenUse {
            calls: 2,
            prompt: Tokens::new(10),
            output: Tokens::new(40),
            cost: NanoDollars::new(5),
            spent: Tokens::new(7),
            spent_cost: NanoDollars::new(3),
        };
        let sums = Sums::from(&open);
        assert_eq!((sums.tokens(), sums.cost), (Tokens::new(57), NanoDollars::new(8)));
        assert_eq!((sums.assumed_tokens, sums.assumed_cost), (Tokens::new(50), NanoDollars::new(5)));
    }
}
