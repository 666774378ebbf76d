//! Why a store cannot be used, and what to do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::owner::Owner;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two gateways would count in the same books.
    #[error(
        "store: {} is in use{}: stop what uses it, or give this gateway a `store.url` of its own",
        directory.display(),
        owner.map_or_else(String::new, |owner| format!(" by process {}", owner.pid))
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Who has it, where there is a note of that.
        owner: Option<Owner>,
    },
    /// The system refuses to read or write.
    #[error("store: {}: {source}{}", path.display(), hint(.source))]
    Io {
        /// The directory or the file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what was written to it.
    #[error(
        "store: {} is damaged ({problem}): put a copy in its place, or move it away to start with empty books",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A later version of the gateway has written it: files of earlier ones are brought up to date.
    #[error(
        "store: {} was written by a later version of the gateway ({problem}): use that version, put a copy from before in \
         its place, or move it away to start with empty books",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is different.
        problem: String,
    },
    /// There is nothing there.
    #[error("store: there is no {}: no gateway has used this store yet", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The files are not where they were.
    #[error(
        "store: the files in {} were deleted or replaced while the gateway runs: they are made anew, with all that it knows; \
         what only they had of the ledger is gone",
        directory.display()
    )]
    Displaced {
        /// The directory.
        directory: PathBuf,
    },
    /// Checkpoints fail at the moment.
    #[error("store: {} cannot be written at the moment: {problem}", directory.display())]
    Down {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The database gave up for a reason of its own.
    #[error("store: {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: Box<redb::Error>,
    },
}

impl StoreError {
    /// What a failure of the database at `path` means.
    pub(super) fn of(path: &Path, error: impl Into<redb::Error>) -> Self {
        let path = path.to_owned();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                let directory = path.parent().unwrap_or(&path).to_owned();
                Self::InUse { owner: Owner::read(&directory), directory }
            }
            // redb's way of saying that the file does not start as its files do.
            redb::Error::Io(source) if source.kind() == ErrorKind::InvalidData => {
                Self::Damaged { path, problem: source.to_string() }
            }
            redb::Error::Io(source) if source.kind() == ErrorKind::UnexpectedEof => {
                Self::Damaged { path, problem: "it is cut off".to_owned() }
            }
            redb::Error::Io(source) => Self::Io { path, source },
            redb::Error::Corrupted(problem) => Self::Damaged { path, problem },
            redb::Error::UpgradeRequired(format) => {
                Self::Format { path, problem: format!("its format is {format}") }
            }
            error @ (redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. }) => {
                Self::Format { path, problem: error.to_string() }
            }
            source => Self::Database { path, source: Box::new(source) },
        }
    }

    /// Whether there is no room on the disk, which may come back.
    pub(super) fn is_no_room(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }

    /// The database panicked, which it does where it finds what it cannot have written.
    pub(super) fn panicked(path: &Path) -> Self {
        Self::Damaged { path: path.to_owned(), problem: "reading or writing it panics".to_owned() }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; let the gateway's user write there, or change `store.url`",
        ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: mount a writable one, or change `store.url`"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room there, or change `store.url`",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "; `store.url` must name a directory",
        _ => "",
    }
}
