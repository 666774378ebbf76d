//! The whole gateway on a kernel too old for the programs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use gateway_tests::harness::{Config, Keys, Site, chat, user_says};
use gateway_tests::netns::Namespace;
use gateway_tests::simulator::{Options, Simulator};

use crate::scene::PATIENCE;
use crate::stage::within;

/// Becomes a program to which the kernel gives itself out for a 2.6 (personality(2), UNAME26).
fn old() -> Command {
    let mut command = Command::new("setarch");
    command.arg("--uname-2.6");
    command
}

/// A gateway's directory with shedding in that mode, and a tenant's keys.
fn site(azure: &Simulator, mode: &str) -> Result<(Site, Keys)> {
    let config = Config::for_simulator(azure)?.with(&format!("[kernel]\nmode = \"{mode}\"\n"))?;
    let site = Site::new(azure, &config)?;
    let keys = site.add_tenant("acme", None)?;
    Ok((site, keys))
}

/// What must be said, in one line: what is in the way, what it takes, and what to do.
fn ensure_told(line: &str) -> Result<()> {
    for words in ["Linux 5.15 or newer", "this kernel is 2.6.", "upgrade it", "kernel.mode = \"off\""] {
        ensure!(line.contains(words), "no {words:?}: {line}");
    }
    Ok(())
}

pub(crate) fn an_old_kernel_is_said_where_shedding_is_required() -> Result<()> {
    let alone = Namespace::new()?;
    let output = alone.run(|| {
        let azure = Simulator::start(Options::default())?;
        let (site, _keys) = site(&azure, "required")?;
        // Should it serve, it is ended.
        let mut wrapper = Command::new("timeout");
        wrapper.arg(PATIENCE.as_secs().to_string()).arg(old().get_program()).args(old().get_args());
        Ok(site.command_under(wrapper, &["serve"])?.output()?)
    })?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{}: {said}", output.status);
    let [line] = said.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>()[..] else {
        anyhow::bail!("not one line beside the log: {said}");
    };
    ensure!(line.starts_with("error: kernel: "), "{line}");
    ensure_told(line)
}

pub(crate) fn on_an_old_kernel_calls_are_served_without_shedding() -> Result<()> {
    let alone = Namespace::new()?;
    let (_azure, gateway, key) = alone.run(|| {
        let azure = Simulator::start(Options::default())?;
        let (site, keys) = site(&azure, "auto")?;
        Ok((azure, site.start_under(old())?, keys.primary))
    })?;
    let reply = within(&alone, async || {
        gateway.ready().await?;
        gateway.call(chat("chat", &key, &user_says("hi"))?).await
    })?;
    ensure!(reply.status == 200, "{}: {:?}", reply.status, reply.body);
    let events = gateway.log().events().into_iter();
    let told: Vec<_> = events.filter(|event| event["message"] == "running without kernel shedding").collect();
    let [warning] = told.as_slice() else {
        anyhow::bail!("not one warning: {told:?}");
    };
    ensure!(warning["level"] == "WARN", "{warning}");
    ensure_told(warning["because"].as_str().context("no reason")?)?;
    let status = within(&alone, async || Ok(gateway.admin_page("/status").await?.json()?["kernel"].take()))?;
    ensure!(status["attached"].is_null(), "{status:#}");
    ensure_told(status["absentBecause"].as_str().context("no reason in /status")?)
}
