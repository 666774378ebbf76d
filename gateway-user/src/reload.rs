//! Putting changed files to use while serving: on SIGHUP, and when a file that was read has changed.
//!
//! The folders of the files are watched rather than the files, because editors and Kubernetes replace files instead of
//! writing to them. Other files change in these folders too, a log at a thousand lines a second among them, so an event says
//! only that it is time to look: what counts is whether one of the configuration's own files is another than before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::assembly::{Backends, Loaded};
use crate::gateway::Gateway;
use crate::kernel;
use crate::serve::Tls;
use crate::supervise::fault;

/// Files that belong together are rarely replaced at the same moment: after a change, so long without another. It is also
/// how often the files are looked at, at most.
const SETTLED: Duration = Duration::from_millis(100);
/// How long files may go on changing after the first event before they are read as they are.
const UNSETTLED: Duration = Duration::from_millis(400);

/// Watches a configuration's files.
pub struct Reloader {
    path: PathBuf,
    gateway: Arc<Gateway>,
    backends: Backends,
    tls: Tls,
    /// The files that were read last, as they were just before.
    seen: Fingerprints,
    hangup: Signal,
    changes: mpsc::Receiver<()>,
    watcher: RecommendedWatcher,
}

/// What is at each path: the content behind all symbolic links, so that a link that leads elsewhere is a change.
type Fingerprints = BTreeMap<PathBuf, Option<Fingerprint>>;

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    modified: Option<SystemTime>,
    length: u64,
    device: u64,
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
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                // Somebody has read a file; this process, for one.
                return;
            }
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
            seen: fingerprints(loaded_files),
            hangup,
            changes,
            watcher,
        };
        reloader.watch(&BTreeSet::new())?;
        Ok(reloader)
    }

    /// Reloads for ever.
    pub async fn run(mut self) {
        loop {
            let due = tokio::select! {
                _ = self.hangup.recv() => true,
                change = self.changes.recv() => {
                    if change.is_none() {
                        return;
                    }
                    self.has_changed().await
                }
            };
            if due {
                fault::point("reloader");
                self.reload().await;
            }
        }
    }

    /// After an event: whether one of the files has changed, told once they have settled or SIGHUP has come.
    async fn has_changed(&mut self) -> bool {
        let latest = Instant::now() + UNSETTLED;
        let mut before = self.look().await;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return true,
                () = tokio::time::sleep(SETTLED) => {}
            }
            if before == self.seen {
                // It was another file; more of its events may wait, and are looked into at the next turn.
                return false;
            }
            let now = self.look().await;
            if now == before || Instant::now() >= latest {
                return true;
            }
            before = now;
        }
    }

    /// The files as they are.
    async fn look(&self) -> Fingerprints {
        let files: Vec<_> = self.seen.keys().cloned().collect();
        // A folder may be on a server that does not answer, and this thread accepts the callers' connections.
        let looking = tokio::task::spawn_blocking(move || fingerprints(files));
        looking.await.unwrap_or_else(|_panicked| self.seen.clone())
    }

    async fn reload(&mut self) {
        // Before they are read: what changes while they are is a change.
        let before = self.look().await;
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || Loaded::read(&path));
        match reading.await {
            Ok(Ok(loaded)) => self.put_to_use(loaded),
            Ok(Err(error)) => self.refuse(&error.to_string()),
            Err(_panicked) => self.refuse("reading it ended in a panic"),
        }
        for (file, fingerprint) in before {
            if let Some(seen) = self.seen.get_mut(&file) {
                *seen = fingerprint;
            }
        }
    }

    fn put_to_use(&mut self, loaded: Loaded) {
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
        let watched = self.folders();
        self.seen = fingerprints(loaded.files(&self.path));
        if let Err(error) = self.watch(&watched) {
            tracing::warn!(error = %error, "cannot watch all files; use SIGHUP");
        }
        self.tls.store(Arc::new(loaded.tls));
        self.gateway.serves_certificate_until(loaded.certificate_expires_at);
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
        self.gateway.refuse(problem);
        tracing::error!(problem, "the changed configuration is refused; the one in use stays");
    }

    fn watch(&mut self, before: &BTreeSet<PathBuf>) -> Result<(), WatchError> {
        let after = self.folders();
        for folder in after.difference(before) {
            self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        for folder in before.difference(&after) {
            self.watcher.unwatch(folder)?;
        }
        Ok(())
    }

    /// The folders of the files.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let folders = self.seen.keys().filter_map(|file| file.parent());
        let named =
            |folder: &Path| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.to_owned();
        folders.map(named).collect()
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn fingerprints(files: Vec<PathBuf>) -> Fingerprints {
    use std::os::unix::fs::MetadataExt as _;
    let fingerprint = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Fingerprint {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    };
    let with_fingerprint = |file: PathBuf| {
        let print = fingerprint(&file);
        (file, print)
    };
    files.into_iter().map(with_fingerprint).collect()
}
