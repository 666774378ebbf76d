//! Attacks by connections: many that do nothing, and ever new ones.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::MOST_CONNECTIONS;
use super::attack::{Target, again};

/// A tenth more than the process takes, all kept open.
pub(super) async fn idle(target: Target) -> anyhow::Result<()> {
    again(target, MOST_CONNECTIONS + MOST_CONNECTIONS / 10, |target| async move {
        target.tries(1);
        let mut stream = target.http1().await?;
        // Until it is closed.
        let _closed = stream.read(&mut [0]).await?;
        Ok(())
    })
    .await
}

/// Whole handshakes.
pub(super) async fn handshakes(target: Target) -> anyhow::Result<()> {
    again(target, 32, |target| async move {
        loop {
            target.tries(1);
            drop(target.http1().await?);
        }
    })
    .await
}

/// Handshakes of which the gateway pays the most and the attacker nothing: recorded bytes, and away once it has answered.
pub(super) async fn hellos(target: Target) -> anyhow::Result<()> {
    let hello = target.hello()?;
    again(target, 32, move |target| {
        let hello = hello.clone();
        async move {
            loop {
                target.tries(1);
                let mut stream = target.tcp(None).await?;
                stream.write_all(&hello).await?;
                let _answered = stream.read(&mut [0]).await?;
            }
        }
    })
    .await
}
