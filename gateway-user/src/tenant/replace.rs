//! Replacing a file whole: its readers see the old one or the new one, also when the machine stops in between.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// Writes beside the file, then takes its place. An old file's owner and mode pass to the new one: the gateway may run
/// as another user than the one who adds tenants.
pub(super) fn replace_file(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.new"));
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&beside)?;
    let written = (|| {
        if let Ok(old) = fs::metadata(path) {
            let new = file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.or_else(|error: io::Error| {
        fs::remove_file(&beside)?;
        Err(error)
    })
}

/// Read and write for the owner alone.
const PRIVATE: u32 = 0o600;
