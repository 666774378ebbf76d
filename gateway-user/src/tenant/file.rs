//! The tenants file: names, tiers, states and key hashes, written by `aoai-gateway tenant …`.

use std::path::{Path, PathBuf};

/// Where the tenants are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantsFile {
    path: PathBuf,
}

impl TenantsFile {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
