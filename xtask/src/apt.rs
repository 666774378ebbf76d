//! Packages of the distribution, for whatever needs one: installed, or only fetched.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Result;
use rustix::process::geteuid;

use crate::test::pass;

/// Installs packages without what they merely recommend. Needs root.
///
/// # Errors
/// When the distribution does not have them, or they cannot be installed.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    renew_lists()?;
    pass(
        apt_get("install")
            .args(["--yes", "--no-install-recommends", "--option=DPkg::Lock::Timeout=300"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // No package starts a server of its own (invoke-rc.d(8)).
            .env("RUNLEVEL", "1"),
    )
}

/// Puts the packages' archives into a folder.
///
/// # Errors
/// When the distribution does not have them.
pub(crate) fn download(packages: &[&str], folder: &Path) -> Result<()> {
    renew_lists()?;
    // As root, apt would warn that its own user may not write there.
    pass(apt_get("download").arg("--option=APT::Sandbox::User=root").args(packages).current_dir(folder))
}

/// Has apt know what the distribution has today, once in a run: a package that was replaced since the lists were made cannot
/// be fetched any more. Only root may.
fn renew_lists() -> Result<()> {
    static RENEWED: OnceLock<()> = OnceLock::new();
    if RENEWED.get().is_none() && geteuid().is_root() {
        pass(apt_get("update").arg("--option=DPkg::Lock::Timeout=300"))?;
        RENEWED.get_or_init(|| ());
    }
    Ok(())
}

fn apt_get(task: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--option=Acquire::Retries=3", task]);
    command
}
