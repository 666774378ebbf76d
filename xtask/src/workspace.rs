//! Where the workspace is, and what building its packages leaves behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The folder that holds the workspace's Cargo.toml.
///
/// # Errors
/// When the manifest folder that cargo names has no parent.
pub(crate) fn root() -> Result<PathBuf> {
    // Asked at run time first: a compiled xtask outlives a move of the folder it was built in.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(manifest.parent().context("xtask lies in no workspace")?.to_path_buf())
}

/// The cargo that started this task, to be run in `root`.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Which of cargo's profiles to build with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// As shipped.
    Release,
}

/// The executables of some packages, by name.
#[derive(Debug)]
pub(crate) struct Executables(BTreeMap<String, PathBuf>);

impl Executables {
    /// Builds every binary of `packages`, showing cargo's own progress.
    ///
    /// # Errors
    /// When cargo cannot be started or the build fails; cargo has then said why.
    pub(crate) fn build(root: &Path, packages: &[&str], profile: Profile) -> Result<Self> {
        let mut command = cargo(root);
        command.args(["build", "--locked", "--bins", "--message-format=json-render-diagnostics"]);
        for package in packages {
            command.args(["--package", package]);
        }
        if profile == Profile::Release {
            command.arg("--release");
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo build")?;
        ensure!(
            output.status.success(),
            "cargo build of {} ended with {}",
            packages.join(", "),
            output.status
        );
        Ok(Self(executables(&String::from_utf8_lossy(&output.stdout))))
    }

    /// Where the executable called `name` is.
    ///
    /// # Errors
    /// When the packages have no binary of that name.
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        let Some(path) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            bail!("no binary {name} was built, only: {}", known.join(", "));
        };
        Ok(path)
    }
}

/// Reads cargo's messages, one JSON object a line ("compiler-artifact" in cargo's external tools reference).
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let name = message.pointer("/target/name")?.as_str()?.to_owned();
            Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"aoai-gateway"},"executable":"/t/debug/aoai-gateway"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = Executables(executables(messages));
        assert_eq!(found.path("aoai-gateway").unwrap(), Path::new("/t/debug/aoai-gateway"));
        assert_eq!(
            found.path("simulator").unwrap_err().to_string(),
            "no binary simulator was built, only: aoai-gateway"
        );
    }
}
