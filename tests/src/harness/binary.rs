//! Finds the gateway's binary, and builds it first where nobody named one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;

/// The gateway's binary: `AOAI_GATEWAY_BIN`, or the one that Cargo builds beside this test in the same profile.
///
/// # Errors
/// When it does not build.
pub(super) fn gateway() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("AOAI_GATEWAY_BIN") {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "AOAI_GATEWAY_BIN names {}, which is no file", path.display());
        // The gateway runs in a directory of its own.
        return Ok(std::path::absolute(path)?);
    }
    let exe = std::env::current_exe()?;
    let profile_directory = exe
        .ancestors()
        .skip(1)
        .find(|directory| directory.file_name().is_some_and(|name| name != "deps" && name != "examples"))
        .with_context(|| format!("{} is in no target directory", exe.display()))?;
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = profile_directory.parent().unwrap_or(profile_directory);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "gateway-user", "--bin", "aoai-gateway"])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    anyhow::ensure!(status.success(), "the gateway does not build: {status}");
    Ok(profile_directory.join("aoai-gateway"))
}
