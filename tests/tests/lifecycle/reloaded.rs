//! Changed files are put to use whatever else happens in their folders, and however they are replaced.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_tests::certificate::Authority;
use gateway_tests::harness::{Client, Config, Protocol, Scene, Site, wait_until};
use gateway_tests::simulator::{Options, Simulator};
use rustix::process::Signal;

use super::{generation, status_with};

/// Writes a line a millisecond to a file until it is dropped, as a log does that is beside the configuration.
struct Scribe {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

/// A minute of lines: longer than any test waits, and not for ever.
const MOST_LINES: u32 = 60_000;

impl Scribe {
    #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
    fn start(file: &Path) -> Self {
        let mut file = fs::File::create(file).unwrap();
        let done = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut lines = 0;
            while !ended.load(Ordering::Relaxed) && lines < MOST_LINES {
                file.write_all(b"a line\n").unwrap();
                lines += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            lines
        });
        Self { done, thread: Some(thread) }
    }

    /// How many lines it has written, if it was still writing.
    fn stop(mut self) -> u32 {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_busy_file_in_the_folder_does_not_keep_changes_away() {
    let scene = Scene::start("").await.unwrap();
    let site = scene.gateway.site();
    let scribe = Scribe::start(&site.path().join("gateway.log"));
    let before = generation(&scene).await;
    site.run(&["tenant", "suspend", "acme"]).unwrap();
    wait_until("a suspended tenant is refused", async || {
        status_with(&scene, &scene.acme.primary).await == 401
    })
    .await
    .unwrap();
    assert_eq!(generation(&scene).await, before + 1.0, "what is written beside it is no change");
    scene.gateway.signal(Signal::HUP).unwrap();
    wait_until("SIGHUP is heard", async || generation(&scene).await == before + 2.0).await.unwrap();
    assert!(scribe.stop() < MOST_LINES, "it was written all the time");
    scene.unharmed().await.unwrap();
}

/// A volume as the kubelet writes it: each file is a link through `..data`, which is replaced whole.
struct Volume<'a>(&'a Path);

impl Volume<'_> {
    fn publish(&self, version: &str, authority: &Authority) {
        let version = format!("..{version}");
        fs::create_dir(self.0.join(&version)).unwrap();
        fs::write(self.0.join(&version).join("tls.key"), authority.private_key_pem()).unwrap();
        fs::write(self.0.join(&version).join("tls.crt"), authority.certificate_pem()).unwrap();
        symlink(&version, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
    }
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_followed() {
    let azure = Simulator::start(Options::default()).unwrap();
    let config = Config::for_simulator(&azure).unwrap().with("[tiers.free]\n").unwrap();
    let site = Site::new(&azure, &config).unwrap();
    let folder = site.path().join("tls");
    let volume = Volume(&folder);
    volume.publish("first", site.authority());
    for file in ["tls.key", "tls.crt"] {
        fs::remove_file(folder.join(file)).unwrap();
        symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
    }
    let scene = Scene::in_site(azure, site).unwrap();
    scene.ready().await.unwrap();
    let before = generation(&scene).await;
    let folder = scene.gateway.site().path().join("tls");
    let volume = Volume(&folder);
    let renewed = Authority::new().unwrap();
    volume.publish("second", &renewed);
    fs::remove_dir_all(folder.join("..first")).unwrap();
    wait_until("the new certificate is served", async || {
        Client::connect(scene.gateway.address(), &renewed, Protocol::Http1).await.is_ok()
    })
    .await
    .unwrap();
    assert_eq!(generation(&scene).await, before + 1.0);
}
