//! `aoai-gateway check`: all that is wrong with the configuration, and what is worth a look, before anything is started
//! with it.

use std::io::Write;

use clap::Args;

use super::{ConfigArg, Failure};
use crate::config::{Config, Warning};
use crate::limits::Clock;
use crate::tenant::Directory;
use crate::tls;

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
    config.warnings().into_iter().chain(config.warnings_among(tenants)).chain(expiring).collect()
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
