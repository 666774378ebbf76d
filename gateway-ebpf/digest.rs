//! The digest of what the kernel object is built from: one definition for `cargo xtask ebpf`, which writes it, and for the
//! build of gateway-user, which checks it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The object, beside its sources.
pub(crate) const OBJECT: &str = "shed.bpf.o";
/// What the object was built from, beside it: the sources' digest.
pub(crate) const RECORD: &str = "shed.bpf.built-from";

/// Every file that the object is built from, in a fixed order, given the package's directory.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn sources(package: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![package.join("Cargo.toml")];
    let mut directories = vec![package.join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// SHA-256 over names and contents, in hexadecimal.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn digest(package: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in sources(package)? {
        let name = file.strip_prefix(package).unwrap_or(&file).to_string_lossy().into_owned();
        let content = fs::read(&file)?;
        // Lengths first, so that no two lists of files read alike.
        hash.update(format!("{} {} {name}\n", name.len(), content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
