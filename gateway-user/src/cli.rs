//! The command line: what can be asked for, and how an answer or a failure is shown.

mod ask;
mod check;
mod kernel;
pub mod serve;
pub mod smoke;
mod table;
mod tenant;
mod usage;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigErrors;
use crate::core_dumps;
use crate::fleet::LedgerError;
use crate::names::TierName;
use crate::secret::KeyError;
use crate::store::StoreError;
use crate::tenant::TenantsError;

pub use ask::AskError;
pub use check::CheckArgs;
pub use kernel::{KernelArgs, KernelCommand};
pub use serve::ServeArgs;
pub use smoke::SmokeArgs;
pub use tenant::{Format, TenantArgs, TenantCommand};
pub use usage::{AdjustArgs, Columns, UsageArgs, UsageCommand, UsageFormat};

/// A multi-tenant gateway in front of Azure OpenAI.
#[derive(Debug, Parser)]
#[command(name = "aoai-gateway", version = VERSION, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The version, and which commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("AOAI_GATEWAY_COMMIT"), ")");

/// What the gateway's binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve calls until SIGTERM or Ctrl-C
    Serve(ServeArgs),
    /// Tell all that is wrong with the configuration, the files it names and the tenants
    ///
    /// Warns, too, of what is allowed and probably a mistake; the exit code is 0 where there are only warnings, and 1 where
    /// something is wrong.
    ///
    /// One assumption is worth knowing, since no answer proves it: under a strict ceiling, a call whose answer breaks off pays
    /// for what upstream can have written unseen, at most `deployments.NAME.max_tokens_per_second` (400 where the
    /// configuration does not say) for each answer and second since upstream's last byte. Where a model of yours writes
    /// faster, set that key.
    Check(CheckArgs),
    /// Add, show and change tenants and their keys
    Tenant(TenantArgs),
    /// Tell who has used how many tokens and dollars, and adjust it
    Usage(UsageArgs),
    /// Show whom the running gateway sheds, and let a source back in
    Kernel(KernelArgs),
    /// Prove on a running gateway that streams are not buffered
    Smoke(SmokeArgs),
}

/// Which configuration a command reads.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// The configuration
    #[arg(
        id = "config",
        long = "config",
        value_name = "FILE",
        env = "AOAI_GATEWAY_CONFIG",
        default_value = "gateway.toml",
        global = true
    )]
    pub path: PathBuf,
}

impl Cli {
    /// Does what was asked for. Answers go to standard output, failures to standard error.
    ///
    /// A wrong configuration or tenants file is exit code 2, as a wrong command line is; other failures are 1.
    #[must_use]
    pub fn run(self) -> ExitCode {
        // Before any secret is read.
        if let Err(error) = core_dumps::forbid() {
            return Failure::CoreDumps(error).report();
        }
        let mut out = io::stdout().lock();
        let result = match self.command {
            Command::Serve(args) => {
                drop(out);
                return serve::run(args);
            }
            Command::Smoke(args) => {
                drop(out);
                return smoke::run(args);
            }
            Command::Check(args) => check::run(&args, &mut out),
            Command::Tenant(args) => tenant::run(args, &mut out),
            Command::Usage(args) => usage::run(args, &mut out),
            Command::Kernel(args) => kernel::run(args, &mut out),
        };
        match result.and_then(|()| Ok(out.flush()?)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    }
}

/// Why a command did not do what was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Files are wrong; a line for each problem.
    #[error("{}", lines(.0))]
    Config(Vec<ConfigErrors>),
    /// The tenants file was not changed.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// There is no such tier.
    #[error("there is no tier `{name}` in {}{}", config.display(), nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean `{n}`?")))]
    NoSuchTier {
        /// The name.
        name: TierName,
        /// The configuration.
        config: PathBuf,
        /// The tier whose name looks most like it.
        nearest: Option<TierName>,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ledger could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger of a fleet could not be read.
    #[error(transparent)]
    Fleet(#[from] LedgerError),
    /// The running gateway was not asked, or did not answer as it should.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The process's memory could be written to a file.
    #[error("core dumps, which would hold keys and prompts, cannot be turned off: {0}")]
    CoreDumps(io::Error),
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(vec![errors])
    }
}

impl Failure {
    #[expect(clippy::print_stderr, reason = "the one place where a command's failure is shown")]
    fn report(&self) -> ExitCode {
        match self {
            // Whoever reads has what it wanted, as in `tenant list | head -1`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            // These lines start with a file and a line number, which editors and CI understand.
            Self::Config(_) | Self::Tenants(TenantsError::Invalid(_)) => eprintln!("{self}"),
            Self::Tenants(_)
            | Self::NoSuchTier { .. }
            | Self::Key(_)
            | Self::Store(_)
            | Self::Fleet(_)
            | Self::Ask(_)
            | Self::CoreDumps(_)
            | Self::Output(_) => eprintln!("error: {self}"),
        }
        match self {
            Self::Config(_) | Self::Tenants(TenantsError::Invalid(_)) => ExitCode::from(INVALID),
            Self::Tenants(_)
            | Self::NoSuchTier { .. }
            | Self::Key(_)
            | Self::Store(_)
            | Self::Fleet(_)
            | Self::Ask(_)
            | Self::CoreDumps(_)
            | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}

fn lines(errors: &[ConfigErrors]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The exit code for a wrong configuration.
const INVALID: u8 = 2;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_be_named_at_either_end_of_a_tenant_command() {
        for line in ["tenant --config other.toml list", "tenant list --config other.toml"] {
            let cli = Cli::try_parse_from(["aoai-gateway"].into_iter().chain(line.split(' '))).unwrap();
            let Command::Tenant(args) = cli.command else { panic!("{line} is no tenant command") };
            assert_eq!(args.config.path, PathBuf::from("other.toml"));
        }
    }

    #[test]
    fn names_are_checked_on_the_command_line() {
        let error = Cli::try_parse_from(["aoai-gateway", "tenant", "add", "a b"]).unwrap_err().to_string();
        assert!(error.contains("may hold only letters, digits"), "{error}");
    }
}
