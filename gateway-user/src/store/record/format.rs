//! Brings a file of an earlier layout up to the present one.

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableHandle as _, WriteTransaction};

use super::{ABOUT, ACCOUNTS, FORMAT, LEDGER, LedgerKey, account_row, first, ledger_row};

/// The layout that this version writes. 1 had tuples of a fixed length, and did not say so.
pub(in crate::store) const CURRENT: u64 = 2;
const FIRST: u64 = 1;

/// Where the tables of the first layout are while they are copied.
const FIRST_ACCOUNTS: TableDefinition<'_, &str, first::AccountRow> = TableDefinition::new("accounts.1");
const FIRST_LEDGER: TableDefinition<'_, LedgerKey<'_>, [u64; 6]> = TableDefinition::new("ledger.1");

/// A ledger row's key as it outlives a transaction.
pub(in crate::store) type OwnedKey = (u64, String, String, String, u8, u64);

/// Rows as this version lays them out, whichever layout they were read from.
#[derive(Debug, Default)]
pub(in crate::store) struct Rows {
    pub(in crate::store) accounts: Vec<(String, Vec<u8>)>,
    pub(in crate::store) ledger: Vec<(OwnedKey, Vec<u8>)>,
}

/// Whether a file says nothing of its layout, or that it is an earlier one.
///
/// # Errors
/// When a later version of the gateway has written it.
pub(in crate::store) fn is_earlier(found: Option<u64>) -> Result<bool, redb::Error> {
    match found.unwrap_or(FIRST) {
        later if later > CURRENT => Err(redb::Error::UpgradeRequired(u8::try_from(later).unwrap_or(u8::MAX))),
        found => Ok(found < CURRENT),
    }
}

/// Rewrites the tables where they have an earlier layout; gives how many rows of the ledger that were. All of it is in the
/// transaction that is given.
pub(in crate::store) fn bring_up(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut about = transaction.open_table(ABOUT)?;
    let found = about.get(FORMAT)?.map(|format| format.value());
    if !is_earlier(found)? {
        return Ok(0);
    }
    let there: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    let is_there = |name: &str| there.iter().any(|table| table == name);
    if is_there(first::ACCOUNTS.name()) {
        transaction.rename_table(first::ACCOUNTS, FIRST_ACCOUNTS)?;
        copy_accounts(transaction)?;
        transaction.delete_table(FIRST_ACCOUNTS)?;
    }
    let mut rows = 0;
    if is_there(first::LEDGER.name()) {
        transaction.rename_table(first::LEDGER, FIRST_LEDGER)?;
        rows = copy_ledger(transaction)?;
        transaction.delete_table(FIRST_LEDGER)?;
    }
    about.insert(FORMAT, CURRENT)?;
    Ok(rows)
}

fn copy_accounts(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let from = transaction.open_table(FIRST_ACCOUNTS)?;
    let mut to = transaction.open_table(ACCOUNTS)?;
    for account in from.iter()? {
        let (tenant, account) = account?;
        to.insert(tenant.value(), account_row(&first::checkpoint(account.value())).as_slice())?;
    }
    Ok(())
}

fn copy_ledger(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let from = transaction.open_table(FIRST_LEDGER)?;
    let mut to = transaction.open_table(LEDGER)?;
    let mut rows = 0;
    for entry in from.iter()? {
        let (key, row) = entry?;
        let key = key.value();
        to.insert(key, ledger_row(&first::sums(key.4, row.value()), None).as_slice())?;
        rows += 1;
    }
    Ok(rows)
}

/// Reads all accounts and rows of a file of any layout, as they are: also what this version does not know of them.
pub(in crate::store) fn all(transaction: &ReadTransaction) -> Result<Rows, redb::Error> {
    let found = transaction.open_table(ABOUT)?.get(FORMAT)?.map(|format| format.value());
    let mut rows = Rows::default();
    if is_earlier(found)? {
        for account in transaction.open_table(first::ACCOUNTS)?.iter()? {
            let (tenant, account) = account?;
            let account = account_row(&first::checkpoint(account.value()));
            rows.accounts.push((tenant.value().to_owned(), account));
        }
        for entry in transaction.open_table(first::LEDGER)?.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            rows.ledger.push((owned(key), ledger_row(&first::sums(key.4, row.value()), None)));
        }
        return Ok(rows);
    }
    for account in transaction.open_table(ACCOUNTS)?.iter()? {
        let (tenant, account) = account?;
        rows.accounts.push((tenant.value().to_owned(), account.value().to_owned()));
    }
    for entry in transaction.open_table(LEDGER)?.iter()? {
        let (key, value) = entry?;
        rows.ledger.push((owned(key.value()), value.value().to_owned()));
    }
    Ok(rows)
}

fn owned((hour, tenant, deployment, model, kind, part): LedgerKey<'_>) -> OwnedKey {
    (hour, tenant.to_owned(), deployment.to_owned(), model.to_owned(), kind, part)
}
