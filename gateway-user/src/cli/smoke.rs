//! `aoai-gateway smoke`: a stand-in.

use std::process::ExitCode;

use clap::Args;

use crate::secret::{MalformedKey, SubscriptionKey};

/// Which gateway to try.
#[derive(Debug, Args)]
pub struct SmokeArgs {
    /// Where the gateway is, such as <https://gateway.example:8443>
    #[arg(long)]
    pub url: String,
    /// A tenant's key
    #[arg(long, env = "AOAI_GATEWAY_KEY", hide_env_values = true, value_parser = key)]
    pub key: SubscriptionKey,
    /// A deployment for chat completions that the tenant may call
    #[arg(long)]
    pub deployment: Option<String>,
}

/// Times the chunks of a stream.
#[must_use]
pub fn run(args: SmokeArgs) -> ExitCode {
    drop(args);
    ExitCode::FAILURE
}

fn key(text: &str) -> Result<SubscriptionKey, MalformedKey> {
    SubscriptionKey::parse(text.as_bytes())
}
