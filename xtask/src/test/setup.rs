//! The step that brings what the others need: from Debian, PyPI, npm and crates.io, and only what is missing.
//!
//! Services come from the distribution and need root. Everything else goes below target/, so that a developer's machine
//! stays as it was and `cargo clean` undoes it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Outcome, is_root, on_path, pass};
use crate::apt;
use crate::workspace::cargo;

/// An executable that some step runs, and the Debian package that has it.
struct Program {
    executable: &'static str,
    package: &'static str,
}

/// What only the distribution can install.
const INSTALLED: &[Program] = &[
    Program { executable: "ip", package: "iproute2" },
    Program { executable: "nsenter", package: "util-linux" },
    Program { executable: "nft", package: "nftables" },
    Program { executable: "bpftool", package: "bpftool" },
    Program { executable: "curl", package: "curl" },
    Program { executable: "nginx", package: "nginx-light" },
    Program { executable: "redis-server", package: "redis-server" },
    Program { executable: "strace", package: "strace" },
    Program { executable: "python3", package: "python3-venv" },
    Program { executable: "node", package: "nodejs" },
    Program { executable: "npm", package: "npm" },
];

/// Single executables, unpacked below target/: the packages would start services or pull in far more.
const UNPACKED: &[Program] = &[
    Program { executable: "promtool", package: "prometheus" },
    Program { executable: "kubectl", package: "kubernetes-client" },
];

const CARGO_DENY: &str = "0.20.2";

pub(super) fn install(context: &Context) -> Result<Outcome> {
    let missing: Vec<&str> = INSTALLED
        .iter()
        .filter(|program| on_path(program.executable).is_none())
        .map(|program| program.package)
        .collect();
    let root = is_root();
    if root && on_path("apt-get").is_some() && !missing.is_empty() {
        apt::install(&missing)?;
    }
    for program in UNPACKED {
        unpack(context, program)?;
    }
    python_environment(context)?;
    node_packages(context)?;
    cargo_deny(context)?;
    if missing.is_empty() || root {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped(format!("not root, so not installed: {}", missing.join(" "))))
}

/// Brings one executable out of a Debian package, without installing the package.
fn unpack(context: &Context, program: &Program) -> Result<()> {
    let Program { executable, package } = program;
    // Without apt the step that needs it says so.
    if context.tool(executable).is_some() || on_path("apt-get").is_none() {
        return Ok(());
    }
    let folder = context.tools().join(package);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    apt::download(&[package], &folder)?;
    let archive = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no package {package}"))?;
    pass(context.command("dpkg-deb").arg("--extract").arg(archive).arg(&folder))?;
    let bin = context.tools().join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(folder.join("usr/bin").join(executable), bin.join(executable))
        .with_context(|| format!("package {package} has no usr/bin/{executable}"))?;
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
}

fn python_environment(context: &Context) -> Result<()> {
    let environment = context.root.join("target/venv");
    let requirements = context.root.join("tests/requirements.txt");
    once_for(&requirements, &environment.join("installed.txt"), || {
        pass(context.command("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        pass(
            context
                .command(context.python())
                .args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--requirement"])
                .arg(&requirements),
        )
    })
}

fn node_packages(context: &Context) -> Result<()> {
    let folder = context.root.join("tests/sdk/node");
    if on_path("npm").is_none() {
        return Ok(());
    }
    once_for(&folder.join("package-lock.json"), &folder.join("node_modules/.installed.json"), || {
        pass(context.command("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))
    })
}

fn cargo_deny(context: &Context) -> Result<()> {
    if context.tool("cargo-deny").is_some() {
        return Ok(());
    }
    println!("building cargo-deny {CARGO_DENY}, once: two minutes on two cores");
    pass(
        cargo(&context.root)
            .args(["install", "--quiet", "--locked", "--version", CARGO_DENY, "--root"])
            .arg(context.tools())
            // Beside our own artefacts, so that an interrupted build goes on where it was.
            .env("CARGO_TARGET_DIR", context.tools().join("build"))
            .arg("cargo-deny"),
    )?;
    fs::remove_dir_all(context.tools().join("build")).context("target/tools/build")
}

/// Does `install` unless `stamp` says that it was done for just this content of `source`.
fn once_for(source: &Path, stamp: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read(source).with_context(|| source.display().to_string())?;
    ensure!(!wanted.is_empty(), "{} is empty", source.display());
    if fs::read(stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).with_context(|| stamp.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_redone_only_when_what_it_came_from_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, stamp) = (folder.path().join("lock"), folder.path().join("stamp"));
        let mut times = 0;
        for content in ["a", "a", "b"] {
            fs::write(&source, content).unwrap();
            once_for(&source, &stamp, || {
                times += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(times, 2);
    }

    #[test]
    fn a_failed_installation_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (source, stamp) = (folder.path().join("lock"), folder.path().join("stamp"));
        fs::write(&source, "a").unwrap();
        once_for(&source, &stamp, || anyhow::bail!("no network")).unwrap_err();
        assert!(!stamp.exists());
    }
}
