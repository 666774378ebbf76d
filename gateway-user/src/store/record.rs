//! How accounts and the ledger are laid out in the database. A change of these types makes older files another format.

use redb::TableDefinition;

use crate::ledger::{Key, Kind, Sums};
use crate::limits::window::Slots;
use crate::limits::{Book, Checkpoint, OpenUse, Period};
use crate::names::{DeploymentName, ModelName, TenantName};
use crate::units::{NanoDollars, Tokens};

/// Of each tenant its last checkpoint.
pub(super) const ACCOUNTS: TableDefinition<'_, &str, AccountRow> = TableDefinition::new("accounts");
/// What was used, by hour first, so that old hours are one range.
pub(super) const LEDGER: TableDefinition<'_, LedgerKey<'_>, [u64; 6]> = TableDefinition::new("ledger");

/// What the database says of itself, by the names below.
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// In [`ABOUT`]: the number of the last checkpoint that is in it.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// In [`ABOUT`]: a random number that tells these books from all others.
pub(super) const BOOKS: &str = "books";

/// Scalars, books of the periods, and the windows of calls and of tokens.
pub(super) type AccountRow = ([u64; 8], [[u64; 3]; Period::ALL.len()], Slots, Slots);
/// The hour, the tenant, the deployment and the model (empty where nobody knows), the kind's number, and the part.
pub(super) type LedgerKey<'a> = (u64, &'a str, &'a str, &'a str, u8, u64);

/// The first key that an hour's rows can have.
pub(super) const fn first_of(hour: u64) -> LedgerKey<'static> {
    (hour, "", "", "", 0, 0)
}

pub(super) fn account_row(checkpoint: &Checkpoint) -> AccountRow {
    let OpenUse { calls, prompt, output, cost, spent, spent_cost } = checkpoint.open;
    let scalars = [
        checkpoint.utc_seconds,
        checkpoint.typical_output,
        calls,
        prompt.get(),
        output.get(),
        cost.get(),
        spent.get(),
        spent_cost.get(),
    ];
    let books = checkpoint.books.map(|Book { ends_at, tokens, cost }| [ends_at, tokens.get(), cost.get()]);
    (scalars, books, checkpoint.calls, checkpoint.tokens)
}

pub(super) fn checkpoint(row: AccountRow) -> Checkpoint {
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

pub(super) fn ledger_key(hour: u64, key: &Key, part: u64) -> LedgerKey<'_> {
    let deployment = key.deployment.as_ref().map_or("", DeploymentName::as_str);
    let model = key.model.as_ref().map_or("", ModelName::as_str);
    (hour, key.tenant.as_str(), deployment, model, key.kind as u8, part)
}

/// The hour, the key and the part; nothing where no gateway can have written them.
pub(super) fn key((hour, tenant, deployment, model, kind, part): LedgerKey<'_>) -> Option<(u64, Key, u64)> {
    let key = Key {
        tenant: TenantName::new(tenant).ok()?,
        deployment: DeploymentName::new(deployment).ok(),
        model: ModelName::new(model).ok(),
        kind: *Kind::ALL.get(usize::from(kind))?,
    };
    Some((hour, key, part))
}

pub(super) const fn ledger_row(sums: &Sums) -> [u64; 6] {
    let Sums { calls, prompt, cached_prompt, completion, reasoning, cost } = *sums;
    [calls, prompt.get(), cached_prompt.get(), completion.get(), reasoning.get(), cost.get()]
}

pub(super) const fn sums(row: [u64; 6]) -> Sums {
    let [calls, prompt, cached_prompt, completion, reasoning, cost] = row;
    Sums {
        calls,
        prompt: Tokens::new(prompt),
        cached_prompt: Tokens::new(cached_prompt),
        completion: Tokens::new(completion),
        reasoning: Tokens::new(reasoning),
        cost: NanoDollars::new(cost),
    }
}
