//! How accounts and the ledger are laid out in the database.
//!
//! A row is a list of numbered fields ([`fields`]), so that a column more is no new format: what a version does not know, it
//! passes over. What it does not know *how to read* has another number in [`FORMAT`], and [`format`](mod@format) brings older files up
//! to it.

pub(super) mod fields;
pub(super) mod first;
pub(super) mod format;

use redb::TableDefinition;

use crate::ledger::{Column, Key, Kind, Row, Sums, Trace};
use crate::limits::window::Slots;
use crate::limits::{Book, Checkpoint, Correction, OpenUse, Period};
use crate::names::{DeploymentName, ModelName, TenantName};
use crate::units::{NanoDollars, Tokens};
use fields::{Field, Fields, Writer};

/// Of each tenant its last checkpoint.
pub(super) const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
/// What was used, by hour first, so that old hours are one range.
pub(super) const LEDGER: TableDefinition<'_, LedgerKey<'_>, &[u8]> = TableDefinition::new("ledger");

/// What the database says of itself, by the names below.
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// In [`ABOUT`]: the number of the last checkpoint that is in it.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// In [`ABOUT`]: a random number that tells these books from all others.
pub(super) const BOOKS: &str = "books";
/// In [`ABOUT`]: which layout the tables have; nothing in a file of the first.
pub(super) const FORMAT: &str = "format";

/// The hour, the tenant, the deployment and the model (empty where nobody knows), the kind's number, and the part.
pub(super) type LedgerKey<'a> = (u64, &'a str, &'a str, &'a str, u8, u64);

/// The first key that an hour's rows can have.
pub(super) const fn first_of(hour: u64) -> LedgerKey<'static> {
    (hour, "", "", "", 0, 0)
}

/// The numbers of an account's fields. None is ever used for anything else.
mod account {
    pub(super) const UTC_SECONDS: u64 = 1;
    pub(super) const TYPICAL_OUTPUT: u64 = 2;
    pub(super) const OPEN_CALLS: u64 = 3;
    pub(super) const OPEN_PROMPT: u64 = 4;
    pub(super) const OPEN_OUTPUT: u64 = 5;
    pub(super) const OPEN_COST: u64 = 6;
    pub(super) const OPEN_SPENT: u64 = 7;
    pub(super) const OPEN_SPENT_COST: u64 = 8;
    pub(super) const OVER_AT: u64 = 9;
    /// The deployment that the corrections behind it are about.
    pub(super) const DEPLOYMENT: u64 = 10;
    /// Of each period three numbers from here on, with one to spare: its end, its tokens and its cost.
    pub(super) const BOOKS: u64 = 16;
    pub(super) const BOOK: u64 = 4;
    /// The same of the books that those took the place of.
    pub(super) const LEFT: u64 = 64;
    /// The windows' slots by age.
    pub(super) const CALLS: u64 = 256;
    pub(super) const TOKENS: u64 = 512;
    /// What was learned about estimates, by kind of request.
    pub(super) const CORRECTIONS: u64 = 1024;
}

/// The numbers of a ledger row's fields beside its columns' ([`Column::number`]).
mod row {
    pub(super) const AT: u64 = 200;
    pub(super) const NOTE: u64 = 201;
}

pub(super) fn account_row(checkpoint: &Checkpoint) -> Vec<u8> {
    let OpenUse { calls, prompt, output, cost, spent, spent_cost } = checkpoint.open;
    let mut row = Writer::new();
    for (number, amount) in [
        (account::UTC_SECONDS, checkpoint.utc_seconds),
        (account::TYPICAL_OUTPUT, checkpoint.typical_output),
        (account::OPEN_CALLS, calls),
        (account::OPEN_PROMPT, prompt.get()),
        (account::OPEN_OUTPUT, output.get()),
        (account::OPEN_COST, cost.get()),
        (account::OPEN_SPENT, spent.get()),
        (account::OPEN_SPENT_COST, spent_cost.get()),
        (account::OVER_AT, checkpoint.over_at),
    ] {
        row.amount(number, amount);
    }
    for (first, books) in [(account::BOOKS, checkpoint.books), (account::LEFT, checkpoint.left)] {
        for (number, Book { ends_at, tokens, cost }) in
            (first..).step_by(usize::try_from(account::BOOK).unwrap_or(1)).zip(books)
        {
            row.amount(number, ends_at);
            row.amount(number + 1, tokens.get());
            row.amount(number + 2, cost.get());
        }
    }
    for (first, slots) in [(account::CALLS, &checkpoint.calls), (account::TOKENS, &checkpoint.tokens)] {
        (first..).zip(slots).for_each(|(number, amount)| row.amount(number, u64::from(*amount)));
    }
    for (deployment, correction) in &checkpoint.corrections {
        row.text(account::DEPLOYMENT, deployment.as_str());
        for (kind, learned) in correction.export() {
            row.amount(account::CORRECTIONS + u64::from(kind), learned);
        }
    }
    row.finish()
}

/// The account of a row; nothing where it is none.
pub(super) fn checkpoint(row: &[u8]) -> Option<Checkpoint> {
    let (mut utc_seconds, mut typical_output, mut over_at) = (0, 0, 0);
    let mut open = OpenUse::default();
    let mut books = [Book::default(); Period::ALL.len()];
    let mut left = books;
    let empty: Slots = [0; _];
    let (mut calls, mut tokens) = (empty, empty);
    let mut corrections: Vec<(DeploymentName, Vec<(u8, u64)>)> = Vec::new();
    for field in Fields::of(row)? {
        let (number, amount) = match field? {
            (number, Field::Amount(amount)) => (number, amount),
            (account::DEPLOYMENT, Field::Text(name)) => {
                corrections.extend(DeploymentName::new(name).ok().map(|name| (name, Vec::new())));
                continue;
            }
            (_, Field::Text(_)) => continue,
        };
        match number {
            account::UTC_SECONDS => utc_seconds = amount,
            account::TYPICAL_OUTPUT => typical_output = amount,
            account::OPEN_CALLS => open.calls = amount,
            account::OPEN_PROMPT => open.prompt = Tokens::new(amount),
            account::OPEN_OUTPUT => open.output = Tokens::new(amount),
            account::OPEN_COST => open.cost = NanoDollars::new(amount),
            account::OPEN_SPENT => open.spent = Tokens::new(amount),
            account::OPEN_SPENT_COST => open.spent_cost = NanoDollars::new(amount),
            account::OVER_AT => over_at = amount,
            account::CORRECTIONS.. => {
                if let (Some((_, learned)), Ok(kind)) =
                    (corrections.last_mut(), u8::try_from(number - account::CORRECTIONS))
                {
                    learned.push((kind, amount));
                }
            }
            account::TOKENS.. => set_slot(&mut tokens, number - account::TOKENS, amount),
            account::CALLS.. => set_slot(&mut calls, number - account::CALLS, amount),
            account::LEFT.. => set_book(&mut left, number - account::LEFT, amount),
            account::BOOKS.. => set_book(&mut books, number - account::BOOKS, amount),
            _ => {}
        }
    }
    let mut checkpoint = Checkpoint::new(utc_seconds, (calls, tokens), books, open, typical_output);
    checkpoint.left = left;
    checkpoint.over_at = over_at;
    checkpoint.corrections =
        corrections.into_iter().map(|(name, learned)| (name, Correction::import(learned))).collect();
    Some(checkpoint)
}

fn set_slot(slots: &mut Slots, age: u64, amount: u64) {
    if let Some(slot) = usize::try_from(age).ok().and_then(|age| slots.get_mut(age)) {
        *slot = u32::try_from(amount).unwrap_or(u32::MAX);
    }
}

fn set_book(books: &mut [Book], place: u64, amount: u64) {
    let book = usize::try_from(place / account::BOOK).ok().and_then(|period| books.get_mut(period));
    match (book, place % account::BOOK) {
        (Some(book), 0) => book.ends_at = amount,
        (Some(book), 1) => book.tokens = Tokens::new(amount),
        (Some(book), 2) => book.cost = NanoDollars::new(amount),
        _ => {}
    }
}

pub(super) fn ledger_key(hour: u64, key: &Key, part: u64) -> LedgerKey<'_> {
    let deployment = key.deployment.as_ref().map_or("", DeploymentName::as_str);
    let model = key.model.as_ref().map_or("", ModelName::as_str);
    (hour, key.tenant.as_str(), deployment, model, key.kind as u8, part)
}

pub(super) fn ledger_row(sums: &Sums, trace: Option<&Trace>) -> Vec<u8> {
    let mut fields = Writer::new();
    Column::ALL.into_iter().for_each(|column| fields.amount(column.number(), column.of(sums)));
    if let Some(Trace { at, note }) = trace {
        fields.amount(row::AT, *at);
        fields.text(row::NOTE, note);
    }
    fields.finish()
}

/// A row with more in it, its other fields as they were: also those that this version does not know. Nothing where it cannot
/// be read.
pub(super) fn ledger_row_with(row: &[u8], more: &Sums) -> Option<Vec<u8>> {
    let (sums, _) = figures(row)?;
    let sums = sums.plus(*more);
    let mut fields = Writer::new();
    Column::ALL.into_iter().for_each(|column| fields.amount(column.number(), column.of(&sums)));
    for field in Fields::of(row)? {
        match field? {
            (number, Field::Amount(_)) if Column::numbered(number).is_some() => {}
            (number, Field::Amount(amount)) => fields.amount(number, amount),
            (number, Field::Text(text)) => fields.text(number, text),
        }
    }
    Some(fields.finish())
}

/// A row of the ledger; nothing where no gateway can have written it.
pub(super) fn row((hour, tenant, deployment, model, kind, part): LedgerKey<'_>, row: &[u8]) -> Option<Row> {
    let key = Key {
        tenant: TenantName::new(tenant).ok()?,
        deployment: DeploymentName::new(deployment).ok(),
        model: ModelName::new(model).ok(),
        kind: Kind::ALL.get(usize::from(kind)).copied().unwrap_or(Kind::Other),
    };
    let (sums, trace) = figures(row)?;
    Some(Row { hour, key, part, sums, trace })
}

fn figures(row: &[u8]) -> Option<(Sums, Option<Trace>)> {
    let mut amounts = Vec::with_capacity(Column::ALL.len());
    let (mut at, mut note) = (0, None);
    for field in Fields::of(row)? {
        match field? {
            (row::AT, Field::Amount(seconds)) => at = seconds,
            (row::NOTE, Field::Text(text)) => note = Some(text),
            (number, Field::Amount(amount)) => {
                amounts.extend(Column::numbered(number).map(|column| (column, amount)));
            }
            (_, Field::Text(_)) => {}
        }
    }
    Some((amounts.into_iter().collect(), note.map(|note| Trace { at, note: note.into() })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::PromptKind;

    #[test]
    fn an_account_survives_its_row() {
        let mut slots: Slots = [0; _];
        let mut more = slots;
        (slots[0], slots[60], more[1]) = (3, u32::MAX, 9);
        let mut books = [Book::default(); Period::ALL.len()];
        for (number, book) in (1..).zip(&mut books) {
            *book =
                Book { ends_at: number, tokens: Tokens::new(u64::MAX), cost: NanoDollars::new(number * 3) };
        }
        let open = OpenUse {
            calls: 1,
            prompt: Tokens::new(2),
            output: Tokens::new(3),
            cost: NanoDollars::new(4),
            spent: Tokens::new(5),
            spent_cost: NanoDollars::new(6),
        };
        let mut before = Checkpoint::new(1_709_212_455, (slots, more), books, open, 77);
        before.over_at = 1_709_212_519;
        before.left = books.map(|book| Book { tokens: Tokens::new(book.ends_at), ..book });
        for (deployment, kind) in [("chat", PromptKind::Chat), ("reason", PromptKind::ResponsesTools)] {
            let mut correction = Correction::default();
            correction.learn(kind, Tokens::new(100), Tokens::new(120));
            correction.learn(PromptKind::Images, Tokens::new(7), Tokens::new(5));
            before.corrections.insert(DeploymentName::new(deployment).unwrap(), correction);
        }
        assert_eq!(checkpoint(&account_row(&before)), Some(before));
    }

    #[test]
    fn what_a_later_version_adds_to_a_row_is_passed_over_and_kept() {
        let mut later = Writer::new();
        later.amount(Column::Calls.number(), 2);
        later.amount(100, 5);
        later.text(101, "of a later version");
        let later = later.finish();
        let read = row((7, "acme", "", "", 99, 1), &later).unwrap();
        assert_eq!((read.sums.calls, read.key.kind), (2, Kind::Other));
        let more = ledger_row_with(&later, &Sums { calls: 3, ..Sums::default() }).unwrap();
        let fields: Vec<_> = Fields::of(&more).unwrap().map(Option::unwrap).collect();
        assert_eq!(
            fields,
            [(1, Field::Amount(5)), (100, Field::Amount(5)), (101, Field::Text("of a later version"))]
        );
    }
}
