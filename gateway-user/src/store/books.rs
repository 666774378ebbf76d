//! The books: the tenants' accounts and the ledger, in one directory.
//!
//! Two databases hold them. `gateway.redb` outlives a power cut: a commit waits for the disk, which may take long. What
//! is not in it by then is in the journal, `journal.redb`, which waits for no disk, outlives the process and is read when
//! the books are opened next. The main database's file is locked for as long as the process uses it, also while it cannot
//! be written, so that no two processes count in the same books.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{ReadableTable as _, WriteTransaction};

use super::StoreError;
use super::database::{Base, Outlives, make_directory};
use super::record;
use super::record::format::{self, Rows};
use super::record::{ABOUT, ACCOUNTS, BOOKS, CHECKPOINT, FORMAT, LEDGER};
use crate::ledger::{Key, Kind, Query, RETENTION_HOURS, Report, Row, Summary, Sums, hour_of};
use crate::limits::{Account, Checkpoint, Now};
use crate::names::TenantName;

const MAIN: &str = "gateway.redb";
const JOURNAL: &str = "journal.redb";
/// A smaller file is not made smaller still at a start: that takes several commits, each of which waits for the disk.
const COMPACTED_FROM: u64 = 16 << 20;

/// The databases in a directory.
#[derive(Debug)]
pub(super) struct Books {
    directory: PathBuf,
    main: Base,
    journal: Base,
    /// Which books these are: a random number that the journal bears, too.
    id: u64,
    /// Where the disk could be read at the start and not written, when that was: what the files have is to be settled as of
    /// then, before anything is written to them.
    unsettled: Mutex<Option<Now>>,
}

/// What changes in one commit: whole accounts and whole rows, so that it can be repeated.
#[derive(Debug)]
pub(super) struct Changes {
    /// Counts up, over restarts too.
    pub(super) number: u64,
    /// The present hour.
    pub(super) hour: u64,
    pub(super) accounts: Vec<(TenantName, Arc<Account>, Checkpoint)>,
    pub(super) rows: Vec<Row>,
    /// Tenants whose accounts are dropped: none of them is among the accounts, unless it has come back with a new one.
    pub(super) gone: Vec<TenantName>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub(super) const fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.rows.is_empty() && self.gone.is_empty()
    }
}

/// Books with what they had kept.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) books: Books,
    pub(super) accounts: HashMap<TenantName, Arc<Account>>,
    /// The last checkpoint that they have.
    pub(super) number: u64,
    /// Why nothing can be written to them yet, if that is so.
    pub(super) problem: Option<StoreError>,
}

impl Books {
    /// Opens the books, makes them where there are none, and brings them to the present: what was held when they were
    /// last written is settled as used, and what is too old is deleted. On a full disk that is done in memory, and on the disk
    /// once it has room; where it has no books yet it must have, or each start would give everybody a fresh budget.
    pub(super) fn recover(directory: &Path, now: Now) -> Result<Recovered, StoreError> {
        make_directory(directory).map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        match Self::recover_on_disk(directory, now) {
            Err(problem) if problem.is_no_room() => Self::recover_in_memory(directory, now, problem),
            recovered => recovered,
        }
    }

    fn recover_in_memory(directory: &Path, now: Now, problem: StoreError) -> Result<Recovered, StoreError> {
        let main = Base::at(directory.join(MAIN), Outlives::PowerCut);
        main.reserve()?;
        let Some(copy) = Base::copy_of(main.path())? else {
            main.clear()?;
            return Err(problem);
        };
        bring_up(&copy)?;
        let id = identify(&copy)?;
        let path = directory.join(JOURNAL);
        take_in(Base::copy_of(&path), id, &copy)?;
        let (accounts, number) = copy.commit(|transaction| bring_forward(transaction, now))?;
        let books = Self {
            directory: directory.to_owned(),
            main,
            journal: Base::at(path, Outlives::Process),
            id,
            unsettled: Mutex::new(Some(now)),
        };
        Ok(Recovered { books, accounts, number, problem: Some(problem) })
    }

    fn recover_on_disk(directory: &Path, now: Now) -> Result<Recovered, StoreError> {
        let of = |source| StoreError::Io { path: directory.to_owned(), source };
        let books = Self::open(directory)?;
        let (accounts, number) = books.main.commit(|transaction| bring_forward(transaction, now))?;
        // Only now: until the main database was written, the journal may have been all there is.
        books.start_journal()?;
        if fs::metadata(books.path()).is_ok_and(|file| file.len() > COMPACTED_FROM) {
            books.main.compact()?;
        }
        // The files' names must survive a power cut as their content does.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(of)?;
        Ok(Recovered { books, accounts, number, problem: None })
    }

    /// Does on the disk what a start on a full one did in memory.
    fn settle(&self, at: Now) -> Result<(), StoreError> {
        bring_up(&self.main)?;
        take_in(existing(self.journal.path()), self.id, &self.main)?;
        self.main.commit(|transaction| bring_forward(transaction, at))?;
        self.start_journal()
    }

    /// Opens the books as they are; there must be some.
    pub(super) fn open_existing(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(MAIN);
        if !path.exists() {
            return Err(StoreError::Absent { path });
        }
        Self::open(directory)
    }

    /// Opens the books with what the journal has and the main database has not. The journal is left as it is: who only reads
    /// may be a user whose files the gateway cannot write.
    fn open(directory: &Path) -> Result<Self, StoreError> {
        let main = Base::open(directory.join(MAIN), Outlives::PowerCut)?;
        bring_up(&main)?;
        let id = identify(&main)?;
        let path = directory.join(JOURNAL);
        take_in(existing(&path), id, &main)?;
        let (directory, journal) = (directory.to_owned(), Base::at(path, Outlives::Process));
        Ok(Self { directory, main, journal, id, unsettled: Mutex::default() })
    }

    /// Whether the files are where they were. Where they are not, others take their places when they are next written.
    pub(super) fn check_place(&self) -> Result<(), StoreError> {
        // What the journal has, the main database has not: it goes into each journal whole.
        self.journal.check_place();
        if self.main.check_place() {
            Ok(())
        } else {
            Err(StoreError::Displaced { directory: self.directory.clone() })
        }
    }

    /// Makes an empty journal in place of the one whose content the main database has.
    fn start_journal(&self) -> Result<(), StoreError> {
        let path = self.journal.path();
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path: path.to_owned(), source })
            }
            Ok(()) | Err(_) => self.journal.ready(),
        }
    }

    pub(super) fn files_in(directory: &Path) -> [PathBuf; 2] {
        [MAIN, JOURNAL].map(|name| directory.join(name))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self) -> &Path {
        self.main.path()
    }

    /// How many files the main database has been so far.
    pub(super) fn files(&self) -> u64 {
        self.main.files()
    }

    /// Puts changes on the disk.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        let unsettled = *self.unsettled.lock();
        if let Some(at) = unsettled {
            self.settle(at)?;
            *self.unsettled.lock() = None;
        }
        self.main.commit(|transaction| {
            // Another file may have been put in the place of the one that was opened.
            format::bring_up(transaction)?;
            transaction.open_table(ABOUT)?.insert(BOOKS, self.id)?;
            write(transaction, changes)?;
            forget(&mut transaction.open_table(LEDGER)?, changes.hour)?;
            Ok(())
        })
    }

    /// Has changes outlive the process, for as long as the main database does not have them: in place of all that was
    /// noted before.
    pub(super) fn note(&self, changes: &Changes) -> Result<(), StoreError> {
        if self.unsettled.lock().is_some() {
            let problem = "the journal has what the database lacks".to_owned();
            return Err(StoreError::Down { directory: self.directory.clone(), problem });
        }
        self.journal.commit(|transaction| {
            transaction.delete_table(ACCOUNTS)?;
            transaction.delete_table(LEDGER)?;
            let mut about = transaction.open_table(ABOUT)?;
            about.insert(BOOKS, self.id)?;
            about.insert(FORMAT, format::CURRENT)?;
            drop(about);
            write(transaction, changes)
        })
    }

    pub(super) fn report(&self, query: &Query, utc_seconds: u64) -> Result<Report, StoreError> {
        self.main.read(|transaction| {
            let mut summary = Summary::new(query, utc_seconds);
            let ledger = match transaction.open_table(LEDGER) {
                Ok(ledger) => ledger,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(summary.report()),
                Err(error) => return Err(error.into()),
            };
            for row in ledger.range(record::first_of(summary.first_hour())..)? {
                let (key, row) = row?;
                if let Some(Row { hour, key, sums, trace, .. }) = record::row(key.value(), row.value()) {
                    summary.add(hour, &key, sums, trace);
                }
            }
            Ok(summary.report())
        })
    }
}

/// Brings the file up to the present format, if it has another. Who only reads the ledger does that, too.
fn bring_up(main: &Base) -> Result<(), StoreError> {
    let is_earlier = main.read(|transaction| match transaction.open_table(ABOUT) {
        Ok(about) => format::is_earlier(about.get(FORMAT)?.map(|format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(true),
        Err(error) => Err(error.into()),
    })?;
    if is_earlier {
        let rows = main.commit(format::bring_up)?;
        if rows > 0 {
            tracing::info!(
                rows,
                "the store was of an earlier version: its books are in the present format now"
            );
        }
    }
    Ok(())
}

/// The number that tells these books from all others; new books are given one.
fn identify(main: &Base) -> Result<u64, StoreError> {
    let known = main.read(|transaction| match transaction.open_table(ABOUT) {
        Ok(about) => Ok(about.get(BOOKS)?.map(|id| id.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    if let Some(id) = known {
        return Ok(id);
    }
    let id = getrandom::u64()
        .map_err(|error| StoreError::Io { path: main.path().to_owned(), source: io::Error::other(error) })?;
    main.commit(|transaction| {
        transaction.open_table(ABOUT)?.insert(BOOKS, id)?;
        Ok(id)
    })
}

/// The journal at a path; nothing where there is none.
fn existing(path: &Path) -> Result<Option<Base>, StoreError> {
    if path.exists() { Base::open(path.to_owned(), Outlives::Process).map(Some) } else { Ok(None) }
}

/// Copies to the main database what a journal has and it has not.
fn take_in(journal: Result<Option<Base>, StoreError>, id: u64, main: &Base) -> Result<(), StoreError> {
    let noted = journal.and_then(|journal| journal.map_or(Ok(None), |journal| noted(&journal, id)));
    match noted {
        Ok(noted) => noted.map_or(Ok(()), |noted| replay(&noted, main)),
        Err(error @ (StoreError::Io { .. } | StoreError::InUse { .. })) => Err(error),
        // Only a machine that stopped can have left it so, and then the main database is what counts.
        Err(error) => {
            tracing::warn!(
                error = %error,
                "the store's journal cannot be read: what was used in the last second before a crash may be missing"
            );
            Ok(())
        }
    }
}

/// What a journal has.
struct Noted {
    number: u64,
    rows: Rows,
}

/// What a journal has of the books with that number.
fn noted(journal: &Base, id: u64) -> Result<Option<Noted>, StoreError> {
    journal.read(|transaction| {
        let about = match transaction.open_table(ABOUT) {
            Ok(about) => about,
            // Nothing was ever noted.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let [of, number] =
            [about.get(BOOKS)?, about.get(CHECKPOINT)?].map(|value| value.map(|value| value.value()));
        let Some(number) = number.filter(|_| of == Some(id)) else { return Ok(None) };
        Ok(Some(Noted { number, rows: format::all(transaction)? }))
    })
}

/// Copies what was noted to the main database, if it is younger than what is there.
fn replay(noted: &Noted, main: &Base) -> Result<(), StoreError> {
    main.commit(|transaction| {
        if last_checkpoint(transaction)? >= noted.number {
            return Ok(());
        }
        let mut table = transaction.open_table(ACCOUNTS)?;
        for (tenant, row) in &noted.rows.accounts {
            table.insert(tenant.as_str(), row.as_slice())?;
        }
        let mut ledger = transaction.open_table(LEDGER)?;
        for ((hour, tenant, deployment, model, kind, part), row) in &noted.rows.ledger {
            let key = (*hour, tenant.as_str(), deployment.as_str(), model.as_str(), *kind, *part);
            ledger.insert(key, row.as_slice())?;
        }
        transaction.open_table(ABOUT)?.insert(CHECKPOINT, noted.number)?;
        Ok(())
    })
}

fn last_checkpoint(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    Ok(transaction.open_table(ABOUT)?.get(CHECKPOINT)?.map_or(0, |number| number.value()))
}

/// Settles what was open, deletes what is over, and gives the accounts as they go on, with the last checkpoint's number.
/// In one transaction: a crash in between changes nothing.
fn bring_forward(
    transaction: &WriteTransaction,
    now: Now,
) -> Result<(HashMap<TenantName, Arc<Account>>, u64), redb::Error> {
    let mut restored = HashMap::new();
    let number = last_checkpoint(transaction)?;
    let mut accounts = transaction.open_table(ACCOUNTS)?;
    let mut ledger = transaction.open_table(LEDGER)?;
    let is_over =
        |row: &[u8]| record::checkpoint(row).is_some_and(|account| account.is_over(now.utc_seconds));
    accounts.retain(|_, row| !is_over(row))?;
    for row in accounts.iter()? {
        let (tenant, row) = row?;
        let Ok(tenant) = TenantName::new(tenant.value()) else { continue };
        let Some(before) = record::checkpoint(row.value()) else { continue };
        restored.insert(tenant, (Arc::new(Account::restore(&before, now)), before));
    }
    for (tenant, (account, before)) in &restored {
        if let Some(checkpoint) = account.checkpoint(now) {
            accounts.insert(tenant.as_str(), record::account_row(&checkpoint).as_slice())?;
        }
        if before.open.calls > 0 {
            let key = Key { tenant: tenant.clone(), deployment: None, model: None, kind: Kind::Recovered };
            let key = record::ledger_key(hour_of(before.utc_seconds), &key, number);
            let used = Sums::from(&before.open);
            let so_far = ledger.get(key)?.and_then(|row| record::ledger_row_with(row.value(), &used));
            let row = so_far.unwrap_or_else(|| record::ledger_row(&used, None));
            ledger.insert(key, row.as_slice())?;
        }
    }
    forget(&mut ledger, hour_of(now.utc_seconds))?;
    let accounts = restored.into_iter().map(|(tenant, (account, _))| (tenant, account)).collect();
    Ok((accounts, number))
}

fn write(transaction: &WriteTransaction, changes: &Changes) -> Result<(), redb::Error> {
    let mut accounts = transaction.open_table(ACCOUNTS)?;
    for tenant in &changes.gone {
        accounts.remove(tenant.as_str())?;
    }
    for (tenant, _, checkpoint) in &changes.accounts {
        accounts.insert(tenant.as_str(), record::account_row(checkpoint).as_slice())?;
    }
    let mut ledger = transaction.open_table(LEDGER)?;
    for Row { hour, key, part, sums, trace } in &changes.rows {
        let row = record::ledger_row(sums, trace.as_ref());
        ledger.insert(record::ledger_key(*hour, key, *part), row.as_slice())?;
    }
    transaction.open_table(ABOUT)?.insert(CHECKPOINT, changes.number)?;
    Ok(())
}

/// Deletes what is too old.
fn forget(
    ledger: &mut redb::Table<'_, record::LedgerKey<'static>, &'static [u8]>,
    hour: u64,
) -> Result<(), redb::StorageError> {
    let oldest = hour.saturating_sub(RETENTION_HOURS);
    ledger.retain_in(..record::first_of(oldest), |_, _| false)
}

#[cfg(test)]
mod tests;
