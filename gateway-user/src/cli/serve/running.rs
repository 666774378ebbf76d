//! A gateway from its first call to its last: until it is told to stop or one of its parts fails, and then to its end.
//!
//! The first SIGTERM or SIGINT ends it in order: `listen.lame_duck`, `listen.drain_timeout`, the store's last checkpoint.
//! A second one ends it at once. Where a part has failed there is no lame duck, for whoever started the process is to start
//! it again soon; calls that are open still have `listen.drain_timeout`, because the other parts serve them well.

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::compute::Threads;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::serve::{Draining, Server};
use crate::store::Writer;
use crate::supervise::{Supervisor, Task};

/// How long the store's last checkpoint may take once a second signal has come.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What serves.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) supervisor: Supervisor,
    pub(super) server: Server,
    pub(super) keeper: Keeper,
    pub(super) signals: StopSignals,
}

/// What keeps what was used, and has something to write when all calls have ended.
pub(super) struct Keeper {
    /// Counts prompts that are paid for, after the last call too.
    pub(super) compute: Threads,
    pub(super) writer: Option<Writer>,
    pub(super) fleet: Option<(Arc<Fleet>, Task)>,
}

/// The signals that ask the process to stop.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on the signals do not end the process by themselves.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

impl Running {
    /// Serves until it has stopped. The exit code is 0 where it was told to, 1 where a part has failed, and 128 plus the
    /// signal's number where a second signal did not let it end in order, as a shell tells of a process that a signal ended.
    pub(super) async fn run(self) -> ExitCode {
        let Self { gateway, supervisor, server, keeper, mut signals } = self;
        let mut again = tokio::select! {
            () = server.accept() => None,
            again = told_to_stop(&mut signals, &gateway, &supervisor) => again,
        };
        gateway.leave();
        let draining = server.close();
        if again.is_none() {
            again = tokio::select! {
                () = draining.ended() => None,
                signal = signals.next() => Some(signal),
            };
        }
        supervisor.stopping();
        let mut finished = pin!(finish(&gateway, draining, keeper));
        if again.is_none() {
            again = tokio::select! {
                () = finished.as_mut() => None,
                signal = signals.next() => Some(signal),
            };
            if again.is_none() {
                tracing::info!("stopped");
                return supervisor.failure().map_or(ExitCode::SUCCESS, |_| ExitCode::FAILURE);
            }
        }
        tracing::warn!("told to stop again: what is still open is cut");
        if timeout(AT_ONCE, finished).await.is_err() {
            tracing::warn!("what was used last may be missing in the store, and counts as all that was held");
        }
        again.map_or(ExitCode::FAILURE, killed_by)
    }
}

/// Waits for the first signal, or for a part to fail, and after a signal until load balancers have had
/// `listen.lame_duck` to notice. The second signal, where one comes meanwhile.
async fn told_to_stop(
    signals: &mut StopSignals,
    gateway: &Gateway,
    supervisor: &Supervisor,
) -> Option<SignalKind> {
    tokio::select! {
        _first = signals.next() => {}
        _failure = supervisor.failed() => return None,
    }
    gateway.leave();
    let lame_duck = gateway.snapshot().config.listen.lame_duck;
    if lame_duck.is_zero() {
        return None;
    }
    tracing::info!(lame_duck_seconds = lame_duck.as_secs_f64(), "leaving: /readyz says no");
    tokio::select! {
        () = tokio::time::sleep(lame_duck) => None,
        _failure = supervisor.failed() => None,
        signal = signals.next() => Some(signal),
    }
}

/// Ends the workers, and writes what they used.
async fn finish(gateway: &Gateway, draining: Draining, keeper: Keeper) {
    let Keeper { compute, writer, fleet } = keeper;
    // Threads are waited for, and the disk, while signals and probes are heard.
    let stopping = tokio::task::spawn_blocking(move || {
        draining.stop();
        compute.stop();
        if let Some(writer) = writer {
            writer.stop();
        }
    });
    if let Err(error) = stopping.await {
        tracing::error!(error = %error, "the last checkpoint may be missing");
    }
    if let Some((fleet, running)) = fleet {
        // It would join again while the node leaves.
        running.cancel().await;
        fleet.leave(gateway).await;
    }
}

fn killed_by(signal: SignalKind) -> ExitCode {
    u8::try_from(128 + signal.as_raw_value()).map_or(ExitCode::FAILURE, ExitCode::from)
}
