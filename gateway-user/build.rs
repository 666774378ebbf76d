//! Checks that the embedded kernel object was built from the sources beside it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

#[path = "../gateway-ebpf/digest.rs"]
mod digest;

fn main() -> ExitCode {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    match check(&here.join("../gateway-ebpf")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say(
                "error",
                "the kernel programs' sources changed since their object was built: run `cargo xtask ebpf`",
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            say("error", &format!("cannot read the kernel programs ({error}): run `cargo xtask ebpf`"));
            ExitCode::FAILURE
        }
    }
}

fn check(package: &Path) -> io::Result<bool> {
    for file in [digest::OBJECT, digest::RECORD, "src"]
        .map(|name| package.join(name))
        .into_iter()
        .chain(digest::sources(package)?)
    {
        say("rerun-if-changed", &file.display().to_string());
    }
    let built_from = fs::read_to_string(package.join(digest::RECORD))?;
    fs::metadata(package.join(digest::OBJECT))?;
    Ok(built_from.lines().next() == Some(digest::digest(package)?.as_str()))
}

fn say(key: &str, value: &str) {
    println!("cargo::{key}={value}");
}
