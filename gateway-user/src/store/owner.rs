//! The note that a running gateway leaves in its store's directory: who it is, and where it answers operators.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

/// The gateway that uses a directory. The note may be older than the gateway: the database's lock decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its process.
    pub pid: u32,
    /// Where it answers operators.
    pub admin: SocketAddr,
}

impl Owner {
    pub(super) fn write(self, directory: &Path) -> io::Result<()> {
        let note = json!({"pid": self.pid, "admin": self.admin.to_string()});
        let draft = directory.join(DRAFT);
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&draft)?.write_all(format!("{note}\n").as_bytes())?;
        fs::rename(draft, directory.join(NOTE))
    }

    pub(super) fn read(directory: &Path) -> Option<Self> {
        let note: Value = serde_json::from_slice(&fs::read(directory.join(NOTE)).ok()?).ok()?;
        Some(Self {
            pid: note.get("pid")?.as_u64()?.try_into().ok()?,
            admin: note.get("admin")?.as_str()?.parse().ok()?,
        })
    }
}

const NOTE: &str = "owner.json";
const DRAFT: &str = ".owner.json.new";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_anything_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Owner::read(folder.path()), None);
        let owner = Owner { pid: 7, admin: ([127, 0, 0, 1], 9464).into() };
        owner.write(folder.path()).unwrap();
        assert_eq!(Owner::read(folder.path()), Some(owner));
        fs::write(folder.path().join(NOTE), "{}").unwrap();
        assert_eq!(Owner::read(folder.path()), None);
    }
}
