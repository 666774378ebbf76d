//! A compiler that makes BPF: Rust with the sources of `core`, and a linker on the same LLVM.
//!
//! Two ways to one, whichever is there or can be had. From rustup: the pinned release with its sources, and a linker that
//! uses the release's own LLVM. From Debian's packages of the same release, unpacked into a folder of our own, since they
//! would displace rustup's if they were installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::run;
use crate::apt;

/// One release for both ways, so that both make the same of the sources.
const RUST: &str = "1.96.0";
const LLVM_MAJOR: &str = "22";
/// The linker on Debian's LLVM, and the last one that can use the LLVM inside rustup's compiler.
const BPF_LINKER: &str = "0.13.0";
const BPF_LINKER_INSIDE: &str = "0.10.4";

/// Debian's packages: compiler, `core` as sources, LLVM for the linker, and the libraries that LLVM takes beyond those that
/// any Debian with a C++ compiler has.
const PACKAGES: [&str; 17] = [
    "rustc-web",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
    "rust-web-src",
    "llvm-22",
    "llvm-22-dev",
    "libllvm22",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "libbsd0",
    "libedit2",
    "libffi8",
    "libicu72",
    "libmd0",
    "libxml2",
    "libz3-4",
];

/// A toolchain that is there.
#[derive(Debug)]
pub(super) struct Toolchain {
    way: Way,
    rustc: PathBuf,
    linker: PathBuf,
    libraries: Vec<PathBuf>,
}

/// How one comes by a toolchain. The LLVMs of the two differ in the last number, and in nothing that is used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// rustup's compiler, and a linker that uses the LLVM inside it
    Rustup,
    /// Debian's compiler, and a linker on Debian's LLVM
    Debian,
}

impl Way {
    const ALL: [Self; 2] = [Self::Rustup, Self::Debian];

    fn install(self, folder: &Path) -> Result<()> {
        match self {
            Self::Rustup => install_rustup(folder),
            Self::Debian => install_debian(folder),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup => write!(f, "rustup {RUST}, bpf-linker {BPF_LINKER_INSIDE}"),
            Self::Debian => write!(f, "debian {RUST}, bpf-linker {BPF_LINKER}"),
        }
    }
}

impl Toolchain {
    /// Finds a toolchain, or installs one below `folder`: by one way only, where one is asked for.
    ///
    /// # Errors
    /// When there is none and no way leads to one.
    pub(super) fn find_or_install(folder: &Path, only: Option<Way>) -> Result<Self> {
        let ways: Vec<Way> =
            Way::ALL.into_iter().filter(|way| only.is_none_or(|only| only == *way)).collect();
        let found = |way: &Way| Self::of(*way, folder).filter(Self::works);
        if let Some(found) = ways.iter().find_map(found) {
            return Ok(found);
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut obstacles = String::new();
        for way in &ways {
            let installed = way.install(folder);
            if let Some(found) = found(way) {
                return Ok(found);
            }
            obstacles += &format!("; {way}: {}", why(installed));
        }
        bail!(
            "no toolchain for BPF, and the committed object needs none unless its sources change{obstacles}"
        )
    }

    /// How it came here.
    pub(super) const fn way(&self) -> Way {
        self.way
    }

    fn of(way: Way, folder: &Path) -> Option<Self> {
        match way {
            Way::Rustup => Self::rustup(folder),
            Way::Debian => Some(Self::debian(folder)),
        }
    }

    /// The folder that holds the compiler's own files.
    ///
    /// # Errors
    /// When the compiler does not tell.
    pub(super) fn sysroot(&self) -> Result<PathBuf> {
        let mut rustc = Command::new(&self.rustc);
        self.apply(&mut rustc);
        let output = rustc.args(["--print", "sysroot"]).output().context("cannot run the compiler")?;
        Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
    }

    /// The linker.
    pub(super) fn linker(&self) -> &Path {
        &self.linker
    }

    /// Makes a command use this toolchain.
    pub(super) fn apply(&self, command: &mut Command) {
        // `-Z build-std` is open to a release only under this name; the release is pinned above.
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        if let Ok(libraries) = std::env::join_paths(&self.libraries)
            && !libraries.is_empty()
        {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    fn rustup(folder: &Path) -> Option<Self> {
        let output = Command::new("rustup")
            .args(["which", "rustc", "--toolchain", RUST])
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let rustc = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        Some(Self {
            way: Way::Rustup,
            rustc,
            linker: folder.join("rustup/bin/bpf-linker"),
            libraries: Vec::new(),
        })
    }

    fn debian(folder: &Path) -> Self {
        let usr = folder.join("debian/usr");
        let libraries = vec![usr.join("lib/llvm-22/lib"), usr.join("lib/x86_64-linux-gnu"), usr.join("lib")];
        Self {
            way: Way::Debian,
            rustc: usr.join("bin/rustc"),
            linker: folder.join("debian/bin/bpf-linker"),
            libraries,
        }
    }

    /// Whether compiler, sources and linker are all there.
    fn works(&self) -> bool {
        let library = |sysroot: PathBuf| sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
        self.linker.is_file() && self.rustc.is_file() && self.sysroot().is_ok_and(library)
    }
}

fn install_rustup(folder: &Path) -> Result<()> {
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", RUST, "--profile", "minimal", "--component", "rust-src"]);
    run(install.args(["--no-self-update"]).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut cargo = Command::new("cargo");
    cargo.args([
        "install",
        "bpf-linker",
        "--quiet",
        "--locked",
        "--version",
        BPF_LINKER_INSIDE,
        "--no-default-features",
    ]);
    cargo.args(["--features", &format!("rust-llvm-{LLVM_MAJOR}"), "--root"]).arg(folder.join("rustup"));
    run(cargo.env("RUSTUP_TOOLCHAIN", RUST))
}

fn install_debian(folder: &Path) -> Result<()> {
    let packages = folder.join("packages");
    fs::create_dir_all(&packages)?;
    apt::download(&PACKAGES, &packages)?;
    for package in fs::read_dir(&packages)? {
        run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(folder.join("debian")))?;
    }
    fs::remove_dir_all(&packages)?;
    let mut cargo = Command::new("cargo");
    cargo.args([
        "install",
        "bpf-linker",
        "--quiet",
        "--locked",
        "--version",
        BPF_LINKER,
        "--no-default-features",
    ]);
    cargo.args(["--features", &format!("llvm-{LLVM_MAJOR}"), "--root"]).arg(folder.join("debian"));
    cargo.env("LLVM_PREFIX", folder.join("debian/usr/lib/llvm-22"));
    run(cargo.env("LD_LIBRARY_PATH", std::env::join_paths(&Toolchain::debian(folder).libraries)?))
}

fn why(result: Result<()>) -> String {
    result.map_or_else(|error| format!("{error:#}"), |()| "incomplete".to_owned())
}
