//! Starts the real gateway in front of a simulator, and calls it.
//!
//! A [`Site`] is a directory with everything that a gateway needs; a [`Gateway`] is the process that runs in it; a
//! [`Client`] is one connection to it. Everything that waits has a deadline, so that a test fails instead of hanging.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

mod binary;
mod client;
mod config;
mod gateway;
mod log;
mod metrics;
mod raw;
mod redis;
mod request;
mod scene;
mod site;
mod unheard;
mod upstream;

pub use client::{Chunk, Client, Protocol, Reply, Streaming};
pub use config::Config;
pub use gateway::Gateway;
pub use log::Log;
pub use metrics::Metrics;
pub use raw::{RawConnection, connect_from};
pub use redis::{Delay, Redis};
pub use request::{chat, post, user_says};
pub use scene::Scene;
pub use site::{Keys, Site};
pub use unheard::Unheard;
pub use upstream::ScriptedUpstream;

/// How long anything that a test waits for may take, on a slow and busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `holds` is true, asking every few milliseconds.
///
/// # Errors
/// When it is not within [`DEADLINE`]; `what` says what was waited for.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        anyhow::ensure!(Instant::now() < deadline, "waited {DEADLINE:?} in vain until {what}");
        sleep(POLL).await;
    }
    Ok(())
}

/// Awaits with the deadline.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(DEADLINE, future).await.map_err(|late| anyhow::anyhow!("{what} took over {DEADLINE:?}: {late}"))
}

const POLL: Duration = Duration::from_millis(5);
