//! A database file that is opened anew after a failure, in one of two ways: one that a power cut spares, and one that is
//! quick however slow the disk is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};

use super::StoreError;

/// What a database may keep of its file in memory; the ledger is written at its end and read rarely.
const CACHE_BYTES: usize = 16 << 20;

/// What a commit outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlives {
    /// A power cut: a commit waits for the disk.
    PowerCut,
    /// The process, however it ends: a commit is with the system, and waits for no disk.
    Process,
}

/// A database file.
#[derive(Debug)]
pub(super) struct Base {
    path: PathBuf,
    outlives: Outlives,
    /// `None` after a failure: it must be opened anew then.
    opened: Mutex<Option<Arc<Database>>>,
}

impl Base {
    /// Opens the file, makes it where there is none, and checks every page of it.
    pub(super) fn open(path: PathBuf, outlives: Outlives) -> Result<Self, StoreError> {
        let opened = Mutex::new(Some(Arc::new(open(&path, outlives)?)));
        Ok(Self { path, outlives, opened })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file as small as it can be; nobody may use the database at that time.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.lock();
        let Some(database) = opened.as_mut().and_then(Arc::get_mut) else { return Ok(()) };
        database.compact().map_err(|error| self.of(error.into()))?;
        Ok(())
    }

    /// Changes it: all that `change` does, or nothing. After a failure the database is opened anew, which checks it;
    /// `change` must be able to be repeated.
    pub(super) fn commit<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_write()?;
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Reads what was last committed; a commit under way is not waited for.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|database| look(&database.begin_read()?))
    }

    fn attempt<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = {
            let mut opened = self.opened.lock();
            match &*opened {
                Some(database) => Arc::clone(database),
                None => Arc::clone(opened.insert(Arc::new(open(&self.path, self.outlives)?))),
            }
        };
        // Nothing that a failed or panicked attempt leaves behind is used again.
        let failure = match catch_unwind(AssertUnwindSafe(|| act(&database))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => self.of(error),
            Err(_panic) => StoreError::panicked(&self.path),
        };
        *self.opened.lock() = None;
        Err(failure)
    }

    fn of(&self, error: redb::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }
}

fn open(path: &Path, outlives: Outlives) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let open = || match outlives {
        Outlives::PowerCut => builder.create(path),
        Outlives::Process => {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
            builder.create_with_backend(Unsynced(file?))
        }
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(StoreError::of(path, error)),
        Err(_panic) => Err(StoreError::panicked(path)),
    }
}

/// A file of which nothing waits for the disk. The system keeps what was written in the order in which it was written,
/// however the process ends; only when the machine stops may later writes be there without earlier ones.
#[derive(Debug)]
struct Unsynced(File);

impl redb::StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
