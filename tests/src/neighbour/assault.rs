//! The attackers' process: this program once more, behind everyone else on its core.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use clap::Args;
use tokio::sync::oneshot;

use super::attack::{ATTACKS, Attack, Target};
use crate::harness::Gateway;

/// What the attackers' process is told; the authority's certificate comes on its standard input.
#[derive(Debug, Args)]
pub struct Assault {
    /// The attack's name
    name: String,
    /// Where the gateway listens
    #[arg(long)]
    gateway: SocketAddr,
    /// The key of the tenant that attacks
    #[arg(long)]
    key: String,
    /// The length of the certificate on standard input, in bytes
    #[arg(long)]
    authority: usize,
}

impl Assault {
    /// Attacks until standard input ends, which it does when the parent wants it, or is gone. Gives what was tried: calls,
    /// connections or frames.
    ///
    /// # Errors
    /// When there is no such attack, or nothing to attack with.
    pub fn run(self) -> anyhow::Result<u64> {
        let Self { name, gateway, key, authority } = self;
        let attack = ATTACKS.iter().find(|attack| attack.name == name);
        let attack = attack.with_context(|| format!("there is no attack {name}"))?;
        let mut certificate = vec![0; authority];
        std::io::stdin().read_exact(&mut certificate)?;
        let target = Target::new(gateway, key, &String::from_utf8(certificate)?, attack.sources)?;
        let (ended, end) = oneshot::channel();
        std::thread::spawn(move || {
            // However it ends.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            let _gone: Result<(), ()> = ended.send(());
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                attacked = (attack.start)(target.clone()) => attacked,
                _ = end => Ok(()),
            }
        })?;
        runtime.shutdown_background();
        Ok(target.tried())
    }
}

/// A running attackers' process; dropping it ends it.
#[derive(Debug)]
pub(super) struct Attacker {
    child: Child,
}

impl Attacker {
    pub(super) fn start(attack: &Attack, gateway: &Gateway, key: &str) -> anyhow::Result<Self> {
        let authority = gateway.site().authority().pem().as_bytes();
        let mut command = last_in_line()?;
        command.args(["attack", attack.name, "--key", key, "--gateway", &gateway.address().to_string()]);
        command.args(["--authority", &authority.len().to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the attackers")?;
        let mut attacker = Self { child };
        attacker.child.stdin.as_mut().context("a child without its pipe")?.write_all(authority)?;
        Ok(attacker)
    }

    /// Ends it, and gives what it tried.
    pub(super) fn stop(mut self) -> anyhow::Result<u64> {
        drop(self.child.stdin.take());
        let mut tried = String::new();
        self.child.stdout.as_mut().context("a child without its pipe")?.read_to_string(&mut tried)?;
        tried.trim().parse().with_context(|| format!("the attackers said {tried:?}"))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // Either fails only where the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// This program once more, to run where nobody else wants the core: however many threads it has, and at once where
/// somebody does (`SCHED_IDLE`, sched(7)).
pub(super) fn last_in_line() -> anyhow::Result<Command> {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(std::env::current_exe()?);
    Ok(command)
}
