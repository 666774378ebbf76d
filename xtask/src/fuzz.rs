//! `cargo xtask fuzz`: libFuzzer on what the gateway reads from outside.
//!
//! With this machine's own toolchain: the flags are those of `cargo fuzz` without a sanitizer, which would need a nightly
//! compiler and find nothing in code that has no `unsafe`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace::cargo;

/// What `cargo xtask fuzz` is told on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// What to fuzz: names of folders in gateway-user/fuzz/corpus; all of them where none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long to spend on each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Fuzz {
    /// Builds with instrumentation and runs each target. What is found to be worth trying stays in target/fuzz.
    ///
    /// # Errors
    /// When a target is not known, does not build, or fails; libFuzzer has then said which bytes it fails for.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        let package = root.join("gateway-user/fuzz");
        let known = folders(&package.join("corpus"))?;
        if let Some(unknown) = self.targets.iter().find(|target| !known.contains(target)) {
            bail!("no target is called {unknown:?}, only: {}", known.join(", "));
        }
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        // A target platform, even this one, keeps the flags from build scripts and macros.
        let status = cargo(root)
            .args(["build", "--locked", "--package=gateway-fuzz", "--features=libfuzzer"])
            .args(["--profile=fuzz", "--target", &platform])
            .env("RUSTFLAGS", INSTRUMENTED.join(" "))
            .status()
            .context("cargo build")?;
        ensure!(status.success(), "cargo build ended with {status}; libFuzzer takes a C++ compiler");
        let program = root.join("target").join(platform).join("fuzz/fuzz");

        for target in if self.targets.is_empty() { &known } else { &self.targets } {
            let found = root.join("target/fuzz").join(target);
            fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
            println!("\n==> {target}");
            let status = Command::new(&program)
                // New inputs go to the first folder.
                .args([&found, &package.join("corpus").join(target)])
                .arg(format!("-max_total_time={}", self.seconds))
                .arg(format!("-artifact_prefix={}/failing-{target}-", root.join("target").display()))
                .args(["-max_len=4096", "-timeout=10", "-print_final_stats=1"])
                .env("AOAI_FUZZ_TARGET", target)
                .status()
                .with_context(|| program.display().to_string())?;
            ensure!(
                status.success(),
                "{target} failed; put the file that libFuzzer wrote into gateway-user/fuzz/corpus/{target}, where \
                 `cargo test -p gateway-fuzz` tries it"
            );
        }
        Ok(())
    }
}

fn folders(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Counts edges and compared values for libFuzzer (`SanitizerCoverage` of LLVM).
const INSTRUMENTED: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
