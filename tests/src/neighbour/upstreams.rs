//! The upstreams that only attackers call: a process of their own, which gives way to the honest callers as the attackers do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use super::assault::last_in_line;
use super::unread::{endless_streams, large_answers};
use anyhow::Context as _;

/// Serves until standard input ends. Writes its two addresses to standard output: of the large answers, and of the endless
/// streams.
///
/// # Errors
/// When they do not start.
pub fn serve() -> anyhow::Result<()> {
    let (large, endless) = (large_answers()?, endless_streams()?);
    writeln!(std::io::stdout(), "{} {}", large.address(), endless.address())?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// The running process; dropping it ends it.
#[derive(Debug)]
pub(super) struct Upstreams {
    child: Child,
    pub(super) large: SocketAddr,
    pub(super) endless: SocketAddr,
}

impl Upstreams {
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut child =
            last_in_line()?.arg("upstreams").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a child without its pipe")?).read_line(&mut line)?;
        let (large, endless) =
            line.trim().split_once(' ').with_context(|| format!("the upstreams said {line:?}"))?;
        Ok(Self { child, large: large.parse()?, endless: endless.parse()? })
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        // Either fails only where the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
