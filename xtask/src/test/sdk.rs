//! The official OpenAI SDKs as callers: tests/sdk/run.py starts simulator and gateway and hands them to each suite.

use anyhow::Result;

use super::{Context, Outcome, on_path, pass};
use crate::workspace::{Executables, Profile};

pub(super) fn python(context: &Context) -> Result<Outcome> {
    drive(context, "python")
}

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
            .env("AOAI_CERTIFICATE_BIN", built.path("throwaway-certificate")?),
    )?;
    Ok(Outcome::Passed)
}
