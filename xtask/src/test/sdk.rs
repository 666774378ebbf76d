//! The gateway as its users meet it: called by the official OpenAI SDKs, and started by `cargo xtask run`.

use anyhow::{Context as _, Result};

use super::{Context, Outcome, on_path, pass};
use crate::workspace::{Executables, Profile};

/// tests/sdk/python, started by tests/sdk/run.py with a simulator and a gateway of its own.
pub(super) fn python(context: &Context) -> Result<Outcome> {
    drive(context, "python")
}

/// tests/sdk/node, likewise.
pub(super) fn node(context: &Context) -> Result<Outcome> {
    if on_path("node").is_none() {
        return Ok(Outcome::Skipped("node is not installed".to_owned()));
    }
    if !context.root.join("tests/sdk/node/node_modules/openai").is_dir() {
        return Ok(Outcome::Skipped(
            "the SDK is not installed; `cargo xtask test --only setup` does it".to_owned(),
        ));
    }
    drive(context, "node")
}

/// The demo as a newcomer meets it; tests/demo.py plays the newcomer.
pub(super) fn demo(context: &Context) -> Result<Outcome> {
    if on_path("curl").is_none() {
        return Ok(Outcome::Skipped("curl is not installed".to_owned()));
    }
    let xtask = std::env::current_exe().context("this executable")?;
    pass(context.command("python3").arg("tests/demo.py").arg(xtask))?;
    Ok(Outcome::Passed)
}

fn drive(context: &Context, suite: &str) -> Result<Outcome> {
    let python = context.python();
    if !python.is_file() {
        return Ok(Outcome::Skipped(
            "no Python environment; `cargo xtask test --only setup` makes it".to_owned(),
        ));
    }
    let built = Executables::build(&context.root, &["gateway-user", "gateway-tests"], Profile::Dev)?;
    pass(
        context
            .command(python)
            .args(["tests/sdk/run.py", suite])
            .env("AOAI_GATEWAY_BIN", built.path("aoai-gateway")?)
            .env("AOAI_SIMULATOR_BIN", built.path("aoai-simulator")?)
            .env("AOAI_CERTIFICATE_BIN", built.path("throwaway-certificate")?)
            .env("AOAI_CONFIG_BIN", built.path("simulator-config")?),
    )?;
    Ok(Outcome::Passed)
}
