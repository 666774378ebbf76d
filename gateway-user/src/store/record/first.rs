//! The first layout: tuples of a fixed length. It is only read.

use redb::TableDefinition;

use super::LedgerKey;
use crate::ledger::{Column, Kind, Sums};
use crate::limits::window::Slots;
use crate::limits::{Book, Checkpoint, OpenUse, Period};
use crate::units::{NanoDollars, Tokens};

pub(in crate::store) const ACCOUNTS: TableDefinition<'_, &str, AccountRow> = TableDefinition::new("accounts");
pub(in crate::store) const LEDGER: TableDefinition<'_, LedgerKey<'_>, [u64; 6]> =
    TableDefinition::new("ledger");

/// Scalars, books of the periods, and the windows of calls and of tokens.
pub(in crate::store) type AccountRow = ([u64; 8], [[u64; 3]; Period::ALL.len()], Slots, Slots);

pub(in crate::store) fn checkpoint(row: AccountRow) -> Checkpoint {
    let (
        [utc_seconds, typical_output, calls, prompt, output, cost, spent, spent_cost],
        books,
        of_calls,
        of_tokens,
    ) = row;
    let open = OpenUse {
        calls,
        prompt: Tokens::new(prompt),
        output: Tokens::new(output),
        cost: NanoDollars::new(cost),
        spent: Tokens::new(spent),
        spent_cost: NanoDollars::new(spent_cost),
    };
    let books = books.map(|[ends_at, tokens, cost]| Book {
        ends_at,
        tokens: Tokens::new(tokens),
        cost: NanoDollars::new(cost),
    });
    Checkpoint::new(utc_seconds, (of_calls, of_tokens), books, open, typical_output)
}

/// The figures of a row of that kind. What was recovered after a crash was all assumed: this layout does not tell it apart.
pub(in crate::store) fn sums(kind: u8, row: [u64; 6]) -> Sums {
    let columns = [
        Column::Calls,
        Column::Prompt,
        Column::CachedPrompt,
        Column::Completion,
        Column::Reasoning,
        Column::Cost,
    ];
    let sums: Sums = columns.into_iter().zip(row).collect();
    if kind == Kind::Recovered as u8 {
        return Sums { assumed_tokens: sums.tokens(), assumed_cost: sums.cost, ..sums };
    }
    sums
}
