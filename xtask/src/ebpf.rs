//! `cargo xtask ebpf`: builds the kernel object from its sources, the same bytes wherever it is built.

mod canonical;
#[path = "../../gateway-ebpf/digest.rs"]
mod digest;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::canonical::canonical;
use self::toolchain::{Toolchain, Way};

/// Builds the kernel programs with a toolchain that is found, or else installed below `target/`.
#[derive(Debug, Args)]
pub(crate) struct Ebpf {
    /// Compare with the committed object instead of replacing it
    #[arg(long)]
    check: bool,
    /// The toolchain to build with; any gives the same bytes. Unless given, whichever is there, else the first that can be
    /// installed
    #[arg(long, value_enum)]
    toolchain: Option<Way>,
}

/// BPF's machine of 2019 on: atomic compare-and-swap, 32-bit registers, longer jumps.
const CPU: &str = "-Ctarget-cpu=v3";

/// The release profile that the object is built with, whatever the gateway itself is built with: one codegen unit, to stay
/// within the 512 bytes of stack, and everything else that the bytes depend on.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    ("CARGO_PROFILE_RELEASE_PANIC", "unwind"),
];

impl Ebpf {
    /// `cargo xtask ebpf --check`.
    pub(crate) const CHECK: Self = Self { check: true, toolchain: None };

    /// Builds, then writes or compares.
    ///
    /// # Errors
    /// When no toolchain can be had, the build does not go through, or `--check` finds a difference.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        let package = root.join("gateway-ebpf");
        let [object, record] = [digest::OBJECT, digest::RECORD].map(|name| package.join(name));
        let sources = digest::digest(&package).context("cannot read the sources")?;
        if self.check {
            let built_from =
                fs::read_to_string(&record).with_context(|| format!("cannot read {}", record.display()))?;
            ensure!(
                built_from.trim() == sources,
                "the sources changed since the object was built: run `cargo xtask ebpf`"
            );
        }
        let toolchain = Toolchain::find_or_install(&root.join("target/ebpf-toolchain"), self.toolchain)?;
        let built = build(root, &toolchain)?;
        if self.check {
            let committed = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
            ensure!(
                committed == built,
                "{} is not what its sources build to with {}: run `cargo xtask ebpf`",
                object.display(),
                toolchain.way()
            );
            return Ok(());
        }
        fs::write(object, built).context("cannot replace the object")?;
        fs::write(&record, format!("{sources}\n")).context("cannot write the record")?;
        Ok(())
    }
}

/// Compiles and links; the object.
fn build(root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let target = root.join("target/ebpf");
    let mut flags: Vec<String> = [
        &format!("-Clinker={}", toolchain.linker().display()),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        CPU,
        // What a traced register is called differs by machine; none is traced here, and one object serves all.
        "--cfg=bpf_target_arch=\"x86_64\"",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    flags.extend(remapped(root, &toolchain.sysroot()?)?);
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--release", "--package", "gateway-ebpf", "--bin", "shed"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        // An outer cargo's choices must not reach this one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .envs(PROFILE);
    toolchain.apply(&mut cargo);
    run(&mut cargo)?;
    let linked = target.join("bpfel-unknown-none/release/shed");
    canonical(&fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?)
}

/// Flags by which the object does not tell where it was built.
fn remapped(root: &Path, sysroot: &Path) -> Result<Vec<String>> {
    let resolved = |path: &Path| {
        path.canonicalize()
            .with_context(|| format!("cannot resolve {}, which the object must not name", path.display()))
    };
    let root = resolved(root)?;
    let mut remaps = vec![(root.clone(), "/aoai-gateway")];
    for (path, name) in [(cargo_home()?, "/cargo"), (sysroot.to_owned(), "/rust")] {
        let path = resolved(&path)?;
        // What lies in the repository, cargo names from there.
        if let Ok(within) = path.strip_prefix(&root) {
            remaps.push((within.to_owned(), name));
        }
        remaps.push((path, name));
    }
    Ok(remaps.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Runs a command to its end; its output goes where ours goes.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
