//! A database file that is opened anew after a failure, in one of two ways: one that a power cut spares, and one that is
//! quick however slow the disk is.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadTransaction, ReadableDatabase as _, StorageBackend, WriteTransaction};
use rustix::fs::Advice;

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
    /// Who uses the database shares the lock, so that it is never opened twice.
    opened: RwLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    /// `None` before it is used, and after a failure: it must be opened then.
    database: Option<Database>,
    /// Kept from one opening to the next, because the lock on it must be.
    file: Option<Arc<File>>,
    /// How many files it has been: another one may have been put in its place.
    files: u64,
}

impl Base {
    /// A file that is opened, and made where there is none, when it is first used.
    pub(super) const fn at(path: PathBuf, outlives: Outlives) -> Self {
        Self { path, outlives, opened: RwLock::new(Opened { database: None, file: None, files: 0 }) }
    }

    /// Opens the file, makes it where there is none, and checks every page of it.
    pub(super) fn open(path: PathBuf, outlives: Outlives) -> Result<Self, StoreError> {
        let base = Self::at(path, outlives);
        base.ready()?;
        Ok(base)
    }

    /// Opens the file now, if it is not open.
    pub(super) fn ready(&self) -> Result<(), StoreError> {
        self.opened().map(drop)
    }

    /// The content of a file as a database in memory: for a disk that can be read and not written. Nothing where none was ever
    /// written: one that could not be made is empty, or all zeros. Its errors are about the file, and after one it must not be used again.
    pub(super) fn copy_of(path: &Path) -> Result<Option<Self>, StoreError> {
        let failed = |source: io::Error| StoreError::Io { path: path.to_owned(), source };
        let content = match std::fs::read(path) {
            Ok(content) if content.iter().any(|byte| *byte != 0) => content,
            Ok(_blank) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let memory = InMemoryBackend::new();
        memory.set_len(content.len() as u64).and_then(|()| memory.write(0, &content)).map_err(failed)?;
        drop(content);
        let database = opened_with(memory, path)?;
        let opened = Opened { database: Some(database), file: None, files: 0 };
        Ok(Some(Self { path: path.to_owned(), outlives: Outlives::Process, opened: RwLock::new(opened) }))
    }

    /// Has the file locked, and made where there is none, before it is opened.
    pub(super) fn reserve(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.write();
        if opened.file.is_none() {
            opened.file = Some(Arc::new(self.lock_file()?));
            opened.files += 1;
        }
        Ok(())
    }

    /// Takes back a file that could not be made, so that the next attempt finds none rather than a damaged one.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        let Some(file) = self.opened.read().file.clone() else { return Ok(()) };
        file.set_len(0).map_err(|error| self.of(error.into()))
    }

    /// Whether the file that is used is the one at the path still. Where it is not, the next use opens the one that is there,
    /// or makes another.
    pub(super) fn check_place(&self) -> bool {
        let is_in_place = self.opened.read().file.as_ref().is_none_or(|file| self.is_in_place(file));
        if !is_in_place {
            self.opened.write().database = None;
        }
        is_in_place
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many files it has been so far.
    pub(super) fn files(&self) -> u64 {
        self.opened.read().files
    }

    /// Makes the file as small as it can be.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.write();
        let Some(database) = opened.database.as_mut() else { return Ok(()) };
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
        let opened = self.opened()?;
        // Nothing that a failed or panicked attempt leaves behind is used again.
        let failure = match catch_unwind(AssertUnwindSafe(|| act(&opened))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => self.of(error),
            Err(_panic) => StoreError::panicked(&self.path),
        };
        drop(opened);
        self.opened.write().database = None;
        Err(failure)
    }

    fn opened(&self) -> Result<MappedRwLockReadGuard<'_, Database>, StoreError> {
        loop {
            let opened = self.opened.read();
            if let Ok(database) = RwLockReadGuard::try_map(opened, |opened| opened.database.as_ref()) {
                return Ok(database);
            }
            let opened = &mut *self.opened.write();
            if opened.database.is_none() {
                opened.database = Some(self.open_file(opened)?);
            }
        }
    }

    fn open_file(&self, opened: &mut Opened) -> Result<Database, StoreError> {
        let file = match &opened.file {
            Some(file) if self.is_in_place(file) => {
                // What a failed write has left in the system's cache looks as if it were on the disk, and is not written
                // again (fsync(2)): what is checked next is to be what the disk has.
                if self.outlives == Outlives::PowerCut
                    && let Err(error) = rustix::fs::fadvise(&**file, 0, None, Advice::DontNeed)
                {
                    tracing::debug!(error = %error, "the store's file may be read from the cache");
                }
                Arc::clone(file)
            }
            _ => {
                let file = opened.file.insert(Arc::new(self.lock_file()?));
                opened.files += 1;
                Arc::clone(file)
            }
        };
        opened_with(Backend { file, outlives: self.outlives }, &self.path)
    }

    /// Whether a file is the one at the path still: a disk may have gone and come back.
    fn is_in_place(&self, file: &File) -> bool {
        let identity = |file: Metadata| (file.dev(), file.ino());
        file.metadata().ok().map(identity).is_some_and(|held| {
            std::fs::metadata(&self.path).ok().map(identity).is_some_and(|found| found == held)
        })
    }

    /// The file, which no other process uses from now on, for as long as this one runs: also while it cannot be written.
    fn lock_file(&self) -> Result<File, StoreError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(PRIVATE_FILE);
        let opening = options.open(&self.path).or_else(|error| match (error.kind(), self.path.parent()) {
            // The directory may have been deleted while the gateway runs.
            (io::ErrorKind::NotFound, Some(directory)) => {
                make_directory(directory).and_then(|()| options.open(&self.path))
            }
            _ => Err(error),
        });
        let file = opening.map_err(|error| self.of(error.into()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(self.of(redb::Error::DatabaseAlreadyOpen)),
            // Some network file systems know no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::Error(error)) => Err(self.of(error.into())),
        }
    }

    fn of(&self, error: redb::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }
}

/// Makes a directory, and those that it is in, where there are none: what is in it is its owner's alone, whatever the umask.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)
}

/// Opens a database, which checks every page of it.
fn opened_with(backend: impl StorageBackend, path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    match catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(backend))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(StoreError::of(path, error)),
        Err(_panic) => Err(StoreError::panicked(path)),
    }
}

const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// A file under a database.
#[derive(Debug)]
struct Backend {
    file: Arc<File>,
    outlives: Outlives,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// The system keeps what was written in the order in which it was written, however the process ends; only when the
    /// machine stops may later writes be there without earlier ones that nobody waited for.
    fn sync_data(&self) -> io::Result<()> {
        match self.outlives {
            Outlives::PowerCut => self.file.sync_data(),
            Outlives::Process => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
