//! Checks that the embedded kernel object was built from the sources beside it, and finds out which commit is built.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

#[path = "../gateway-ebpf/digest.rs"]
mod digest;

fn main() -> ExitCode {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    say("rerun-if-env-changed", COMMIT);
    say(
        "rustc-env",
        &format!("{COMMIT}={}", commit(&here.join("..")).unwrap_or_else(|| "unknown".to_owned())),
    );
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

/// The commit that is built: from the environment, where a build has no repository; otherwise what git says.
///
/// A debug build does not ask git: every commit would have it built anew.
fn commit(root: &Path) -> Option<String> {
    if let Some(named) = env::var(COMMIT).ok().filter(|named| !named.is_empty()) {
        return Some(named.chars().filter(char::is_ascii_alphanumeric).take(40).collect());
    }
    if env::var("PROFILE").ok()? != "release" {
        return None;
    }
    let root = root.canonicalize().ok()?;
    // The sources may lie, without a repository of their own, in somebody else's.
    let of = git(&root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&of).canonicalize().ok()? != root {
        return None;
    }
    // What the name of the commit is read from. A file that is not there would have the build run each time.
    let branch = git(&root, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        if path.is_file() {
            say("rerun-if-changed", &path.display().to_string());
        }
    }
    git(&root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

/// The variable that names the commit, to this script and to the compiler.
const COMMIT: &str = "AOAI_GATEWAY_COMMIT";

fn say(key: &str, value: &str) {
    println!("cargo::{key}={value}");
}
