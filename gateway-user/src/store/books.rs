//! The database: one file with the tenants' accounts and the ledger.
//!
//! The file is locked while it is open, so that no two processes count in the same books, and checked when it is opened:
//! every page's checksum, whatever ended the last process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::StoreError;
use super::record;
use super::record::{ACCOUNTS, LEDGER};
use crate::ledger::{Key, Kind, Pending, Query, RETENTION_HOURS, Report, Summary, Sums, hour_of};
use crate::limits::{Account, Checkpoint, Now};
use crate::names::TenantName;

/// What the database may keep of its file in memory; the ledger is written at its end and read rarely.
const CACHE_BYTES: usize = 16 << 20;
const FILE: &str = "gateway.redb";

/// The database in a directory.
#[derive(Debug)]
pub(super) struct Books {
    directory: PathBuf,
    /// `None` after a failure: it must be opened anew then.
    database: Mutex<Option<Arc<Database>>>,
}

/// What changes in one commit.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    pub(super) accounts: &'a [(TenantName, Arc<Account>, Checkpoint)],
    pub(super) pending: &'a mut Pending,
    /// The present hour.
    pub(super) hour: u64,
}

impl Books {
    /// Opens the database, makes it where there is none, and brings it to the present: what was held when it was last
    /// written is settled as used, and what is too old is deleted.
    pub(super) fn recover(
        directory: &Path,
        now: Now,
    ) -> Result<(Self, HashMap<TenantName, Arc<Account>>), StoreError> {
        fs::create_dir_all(directory)
            .map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        let mut database = open(&path)?;
        let accounts = bring_forward(&database, now).map_err(|error| StoreError::of(&path, error))?;
        database.compact().map_err(|error| StoreError::of(&path, error))?;
        // The file's name must survive a power cut as its content does.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        Ok((Self::new(directory, database), accounts))
    }

    /// Opens the database as it is; there must be one.
    pub(super) fn open_existing(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Err(StoreError::Absent { path });
        }
        Ok(Self::new(directory, open(&path)?))
    }

    fn new(directory: &Path, database: Database) -> Self {
        Self { directory: directory.to_owned(), database: Mutex::new(Some(Arc::new(database))) }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Puts changes on the disk, all of them or none. After a failure the database is opened anew, which checks it.
    pub(super) fn commit(&self, changes: &mut Changes<'_>) -> Result<(), StoreError> {
        let opened = self.database.lock().clone();
        let database = match opened {
            Some(database) => database,
            None => {
                let database = Arc::new(open(&self.path())?);
                *self.database.lock() = Some(Arc::clone(&database));
                database
            }
        };
        // Nothing that a failed or panicked write leaves behind is used again: `changes` repeats whole rows.
        let commit = AssertUnwindSafe(|| write(&database, changes));
        let failure = match catch_unwind(commit) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => StoreError::of(&self.path(), error),
            Err(_panic) => StoreError::panicked(&self.path()),
        };
        *self.database.lock() = None;
        Err(failure)
    }

    pub(super) fn report(&self, query: &Query, utc_seconds: u64) -> Result<Report, StoreError> {
        let of = |error: redb::Error| StoreError::of(&self.path(), error);
        let Some(reading) = self.database.lock().as_ref().map(|database| database.begin_read()) else {
            let problem = "it is being opened anew after a failure".to_owned();
            return Err(StoreError::Down { directory: self.directory.clone(), problem });
        };
        let reading = reading.map_err(|error| of(error.into()))?;
        let mut summary = Summary::new(query, utc_seconds);
        match reading.open_table(LEDGER) {
            Ok(ledger) => {
                for row in ledger
                    .range(record::first_of(summary.first_hour())..)
                    .map_err(|error| of(error.into()))?
                {
                    let (key, sums) = row.map_err(|error| of(error.into()))?;
                    if let Some((hour, key)) = record::key(key.value()) {
                        summary.add(hour, &key, record::sums(sums.value()));
                    }
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(of(error.into())),
        }
        Ok(summary.report())
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let open =
        || Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
    match catch_unwind(open) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(StoreError::of(path, error)),
        Err(_panic) => Err(StoreError::panicked(path)),
    }
}

/// Settles what was open, deletes what is over, and gives the accounts as they go on. In one transaction: a crash in
/// between changes nothing.
fn bring_forward(database: &Database, now: Now) -> Result<HashMap<TenantName, Arc<Account>>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut restored = HashMap::new();
    {
        let mut accounts = transaction.open_table(ACCOUNTS)?;
        let mut ledger = transaction.open_table(LEDGER)?;
        accounts.retain(|_, row| !record::checkpoint(row).is_over(now.utc_seconds))?;
        for row in accounts.iter()? {
            let (tenant, row) = row?;
            let Ok(tenant) = TenantName::new(tenant.value()) else { continue };
            let before = record::checkpoint(row.value());
            restored.insert(tenant, (Arc::new(Account::restore(&before, now)), before));
        }
        for (tenant, (account, before)) in &restored {
            if let Some(checkpoint) = account.checkpoint(now) {
                accounts.insert(tenant.as_str(), record::account_row(&checkpoint))?;
            }
            if before.open.calls > 0 {
                let key =
                    Key { tenant: tenant.clone(), deployment: None, model: None, kind: Kind::Recovered };
                let key = record::ledger_key(hour_of(before.utc_seconds), &key);
                let so_far = ledger.get(key)?.map_or_else(Sums::default, |row| record::sums(row.value()));
                ledger.insert(key, record::ledger_row(&so_far.plus(Sums::from(&before.open))))?;
            }
        }
        forget(&mut ledger, hour_of(now.utc_seconds))?;
    }
    transaction.commit()?;
    Ok(restored.into_iter().map(|(tenant, (account, _))| (tenant, account)).collect())
}

fn write(database: &Database, changes: &mut Changes<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut accounts = transaction.open_table(ACCOUNTS)?;
        for (tenant, _, checkpoint) in changes.accounts {
            accounts.insert(tenant.as_str(), record::account_row(checkpoint))?;
        }
        let mut ledger = transaction.open_table(LEDGER)?;
        for (hour, key, row) in changes.pending.rows() {
            let key = record::ledger_key(hour, key);
            if row.before.is_none() {
                row.before =
                    Some(ledger.get(key)?.map_or_else(Sums::default, |row| record::sums(row.value())));
            }
            ledger.insert(key, record::ledger_row(&row.sums()))?;
        }
        forget(&mut ledger, changes.hour)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Deletes what is too old.
fn forget(
    ledger: &mut redb::Table<'_, record::LedgerKey<'static>, [u64; 6]>,
    hour: u64,
) -> Result<(), redb::StorageError> {
    let oldest = hour.saturating_sub(RETENTION_HOURS);
    ledger.retain_in(..record::first_of(oldest), |_, _| false)
}

#[cfg(test)]
mod tests;
