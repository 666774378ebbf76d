//! `aoai-gateway check`: all that is wrong with the configuration, and what is worth a look, before anything is started
//! with it.

use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArg, Failure};
use crate::config::{Config, StoreLocation, Warning};
use crate::limits::Clock;
use crate::tenant::Directory;
use crate::{store, tls};

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArg,
}

pub(super) fn run(args: &CheckArgs, out: &mut impl Write) -> Result<(), Failure> {
    let path = &args.config.path;
    let (config, mut errors) = match Config::check(path) {
        Ok(config) => (config, Vec::new()),
        // Certificates may be wrong where the rest is not: then the tenants can be checked all the same.
        Err(wrong) => match Config::load(path) {
            Ok(config) => (config, vec![wrong]),
            Err(_the_same) => return Err(wrong.into()),
        },
    };
    let directory = Directory::load(&config.tenants, &config.tiers).map_err(|wrong| errors.push(wrong));
    let tenants = directory.as_ref().map_or(0, Directory::len);
    for warning in warnings(&config, tenants) {
        writeln!(out, "{}: warning: {warning}", path.display())?;
    }
    match directory {
        Ok(directory) if errors.is_empty() => {
            let counts = [
                counted(config.backends.len(), "backend"),
                counted(config.deployments.len(), "deployment"),
                counted(config.tiers.len(), "tier"),
                counted(directory.len(), "tenant"),
            ];
            Ok(writeln!(out, "{}: ok: {}", path.display(), counts.join(", "))?)
        }
        Ok(_) | Err(()) => Err(Failure::Config(errors)),
    }
}

/// What is worth a look in a configuration with so many tenants, and at this moment in the certificate that it names.
pub(super) fn warnings(config: &Config, tenants: usize) -> Vec<Warning> {
    let now = Clock::start().now().utc_seconds;
    let certificate = tls::certificate_expires_at(&config.listen);
    let expiring = certificate.and_then(|expires_at| config.certificate_warning(expires_at, now));
    let exposed = secret_files(config).into_iter().filter(|path| is_readable_by_others(path));
    let exposed = exposed.map(Warning::ReadableByOthers);
    config
        .warnings()
        .into_iter()
        .chain(config.warnings_among(tenants))
        .chain(expiring)
        .chain(exposed)
        .collect()
}

/// The files with the tenants and with what they used.
fn secret_files(config: &Config) -> Vec<PathBuf> {
    let tenants = config.tenants.path().to_owned();
    match &config.store.location {
        StoreLocation::Directory(directory) => store::files(directory).into_iter().chain([tenants]).collect(),
        StoreLocation::Redis(_) => vec![tenants],
    }
}

/// Whether a user who is neither the owner nor of the group can read a file, and come to it.
fn is_readable_by_others(path: &Path) -> bool {
    let allows = |path: &Path, bits: u32| path.metadata().is_ok_and(|of| of.mode() & bits == bits);
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    allows(path, 0o004) && allows(folder, 0o001)
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_can_come_to_and_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.redb");
        fs::write(&file, "").unwrap();
        for (folder_mode, mode, told) in
            [(0o755, 0o644, true), (0o755, 0o640, false), (0o700, 0o644, false), (0o711, 0o604, true)]
        {
            fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_others(&file), told, "{folder_mode:o} {mode:o}");
        }
        assert!(!is_readable_by_others(&folder.path().join("absent")));
    }
}
