//! Putting changed files to use while serving: on SIGHUP, and when a file that was read has changed.
//!
//! The folders of the files are watched rather than the files, because editors and Kubernetes replace files instead of
//! writing to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::assembly::{Backends, Loaded};
use crate::gateway::Gateway;
use crate::kernel;
use crate::serve::Tls;
use crate::supervise::fault;

/// Files that belong together are rarely replaced at the same moment: after a change, so long without another.
const SETTLED: Duration = Duration::from_millis(100);

/// Watches a configuration's files.
pub struct Reloader {
    path: PathBuf,
    gateway: Arc<Gateway>,
    backends: Backends,
    tls: Tls,
    files: Vec<PathBuf>,
    seen: Vec<Option<Fingerprint>>,
    hangup: Signal,
    changes: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No handler for SIGHUP.
    #[error("cannot listen for SIGHUP: {0}")]
    Signal(std::io::Error),
    /// The system does not tell of changes.
    #[error("cannot watch the configuration's files: {0}")]
    Watch(#[from] notify::Error),
}

impl Reloader {
    /// Starts to watch the files that `loaded` came from.
    ///
    /// # Errors
    /// When the system refuses to tell of changes or signals.
    pub fn new(
        path: &Path,
        loaded_files: Vec<PathBuf>,
        gateway: Arc<Gateway>,
        backends: Backends,
        tls: Tls,
    ) -> Result<Self, WatchError> {
        let hangup = signal(SignalKind::hangup()).map_err(WatchError::Signal)?;
        let (sender, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_event| {
            // A full queue says the same thing already.
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                tracing::debug!("nobody waits for changed files any more");
            }
        })?;
        let mut reloader = Self {
            path: path.to_owned(),
            gateway,
            backends,
            tls,
            seen: fingerprints(&loaded_files),
            files: loaded_files,
            hangup,
            changes,
            watcher,
        };
        reloader.watch(&[])?;
        Ok(reloader)
    }

    /// Reloads for ever.
    pub async fn run(mut self) {
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                change = self.changes.recv() => {
                    if change.is_none() {
                        return;
                    }
                    false
                }
            };
            while tokio::time::timeout(SETTLED, self.changes.recv())
                .await
                .is_ok_and(|change| change.is_some())
            {}
            let now = fingerprints(&self.files);
            if asked || now != self.seen {
                fault::point("reloader");
                self.seen = now;
                self.reload();
            }
        }
    }

    fn reload(&mut self) {
        let loaded = match Loaded::read(&self.path) {
            Ok(loaded) => loaded,
            Err(error) => return self.refuse(&error.to_string()),
        };
        let backends = self.backends.of(&loaded.config);
        let running = self.gateway.snapshot();
        for (key, changed) in [
            ("listen.address", running.config.listen.address != loaded.config.listen.address),
            ("listen.workers", running.config.listen.workers != loaded.config.listen.workers),
            ("admin.address", running.config.admin.address != loaded.config.admin.address),
            ("identity", running.config.identity != loaded.config.identity),
            ("store", running.config.store != loaded.config.store),
            ("log", running.config.log != loaded.config.log),
            ("kernel.mode", running.config.kernel.mode != loaded.config.kernel.mode),
            ("kernel.interface", running.config.kernel.interface != loaded.config.kernel.interface),
            ("kernel.attach", running.config.kernel.attach != loaded.config.kernel.attach),
        ] {
            if changed {
                tracing::warn!(key, "this key has changed and takes effect at the next start");
            }
        }
        let before = std::mem::replace(&mut self.files, loaded.files(&self.path));
        if let Err(error) = self.watch(&before) {
            tracing::warn!(error = %error, "cannot watch all files; use SIGHUP");
        }
        self.seen = fingerprints(&self.files);
        self.tls.store(Arc::new(loaded.tls));
        if let Err(error) = self.gateway.shedder.reconfigure(loaded.config.kernel.clone()) {
            tracing::warn!(
                because = kernel::describe(&error),
                "the kernel keeps its limits; the gateway itself has the new ones"
            );
        }
        self.gateway.replace(loaded.config, loaded.directory, backends);
        tracing::info!(generation = self.gateway.metrics.config_generation.get(), "configuration reloaded");
    }

    fn refuse(&self, problem: &str) {
        self.gateway.metrics.config_rejected.inc();
        tracing::error!(problem, "the changed configuration is refused; the one in use stays");
    }

    fn watch(&mut self, before: &[PathBuf]) -> Result<(), WatchError> {
        let (before, after) = (folders(before), folders(&self.files));
        for folder in after.difference(&before) {
            self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        for folder in before.difference(&after) {
            self.watcher.unwatch(folder)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("files", &self.files).finish_non_exhaustive()
    }
}

fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    files
        .iter()
        .filter_map(|file| file.parent())
        .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
        .collect()
}

fn fingerprints(files: &[PathBuf]) -> Vec<Option<Fingerprint>> {
    use std::os::unix::fs::MetadataExt as _;
    files
        .iter()
        .map(|file| {
            let metadata = std::fs::metadata(file).ok()?;
            Some(Fingerprint {
                modified: metadata.modified().ok(),
                length: metadata.len(),
                inode: metadata.ino(),
            })
        })
        .collect()
}
