//! `serve`: puts the parts together and runs them until it is told to stop.

mod running;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use clap::Args;
use prometheus_client::registry::Registry;

use super::{ConfigArg, check};
use crate::admin::Admin;
use crate::assembly::{Backends, LoadError, Loaded};
use crate::config::{Config, StoreLocation};
use crate::fleet::{self, Fleet};
use crate::gateway::{Gateway, Keeping};
use crate::kernel::{self, KernelError, Shedder};
use crate::limits::Clock;
use crate::metrics::{self, Metrics};
use crate::reload::{Reloader, WatchError};
use crate::serve::{self, ServeError, Server, Shared, Tls, descriptors};
use crate::store::{Store, StoreError, Writer};
use crate::supervise::{Supervisor, panics};
use crate::tls::TlsError;
use crate::upstream::identity::IdentityError;
use crate::{admin, logging, tls, tokens};
use running::{Keeper, Running, StopSignals};

/// What `serve` is told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("identity: {0}")]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Fleet(#[from] fleet::OpenError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {0} (admin): {1}")]
    Admin(SocketAddr, io::Error),
    #[error("kernel: {}", kernel::describe(.0))]
    Kernel(#[from] KernelError),
    #[error(
        "{} could not be read again after a change: {source}; the gateway has given up its privileges by then, so give \
         the file to the user that it runs as",
        path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT.
#[must_use]
pub fn run(args: ServeArgs) -> ExitCode {
    match start(&args) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// What took privileges, and is kept without them.
struct Doors {
    listener: TcpListener,
    admin: TcpListener,
    shedder: Arc<Shedder>,
}

fn start(args: &ServeArgs) -> Result<ExitCode, StartError> {
    let path = &args.config.path;
    let loaded = Loaded::read(path)?;
    // The first to be started is the last to be dropped: it writes what is still to be written.
    let mut log = logging::start(loaded.config.log);
    for warning in check::warnings(&loaded.config, loaded.directory.len()) {
        tracing::warn!(problem = %warning, "configuration");
    }
    let doors = Doors::open(&loaded)?;
    // Capabilities belong to threads: from here on there may be more than one.
    kernel::drop_privileges()?;
    still_readable(loaded.files(path))?;
    descriptors::reserve(loaded.config.listen.max_connections.get(), &doors.listener);
    let supervisor = Supervisor::default();
    log.in_background(&supervisor)?;
    preload(&loaded);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let running = serve(args, loaded, doors, &supervisor).await?;
        Ok(running.run().await)
    });
    supervisor.stopping();
    // A second signal does not wait for what is stuck.
    runtime.shutdown_background();
    served
}

impl Doors {
    fn open(loaded: &Loaded) -> Result<Self, StartError> {
        let config = &loaded.config;
        let listener = serve::bind(config.listen.address)?;
        let address = config.admin.address;
        let admin = admin::bind(address).map_err(|error| StartError::Admin(address, error))?;
        let shedder = Arc::new(Shedder::attach(config.kernel.clone(), listener.local_addr()?)?);
        Ok(Self { listener, admin, shedder })
    }
}

/// Fails now rather than at the first reload, where a file was open to the privileges alone.
fn still_readable(files: Vec<PathBuf>) -> Result<(), StartError> {
    files.into_iter().try_for_each(|path| match File::open(&path) {
        Ok(_readable) => Ok(()),
        Err(source) => Err(StartError::Unreadable { path, source }),
    })
}

async fn serve(
    args: &ServeArgs,
    loaded: Loaded,
    doors: Doors,
    supervisor: &Supervisor,
) -> Result<Running, StartError> {
    let Doors { listener, admin, shedder } = doors;
    let path = &args.config.path;
    let files = loaded.files(path);
    let Loaded { config, directory, tls, certificate_expires_at } = loaded;
    let (listen, admin_address) = (config.listen.clone(), config.admin.address);
    let shedding = shedder.is_attached();
    let clock = Clock::start();
    let (mut registry, metrics) = metrics::registry();
    let counted = Arc::clone(&metrics);
    panics::observe(move |scope| counted.panicked(scope));
    let mut backends = Backends::new(&config, tls::client()?, clock, Arc::clone(&metrics), supervisor)?;
    let prepared = backends.of(&config);
    let keeping = keeping(&config, clock, &metrics, &mut registry)?;
    let gateway = Gateway::new(clock, metrics, keeping, Arc::clone(&shedder), config, directory, prepared);
    gateway.serves_certificate_until(certificate_expires_at);
    let store = gateway.store.as_ref();
    let writer = store.map(|store| Writer::start(store, &gateway, supervisor)).transpose()?;
    if let Some(fleet) = &gateway.fleet {
        registry.register_collector(Box::new(fleet::Leases::new(&gateway)));
        // Before calls come: a budget that others use too is not to be guessed at.
        fleet.join(&gateway).await;
    }
    let compute = gateway.compute.start(supervisor)?;
    let tls: Tls = Arc::new(ArcSwap::from_pointee(tls));
    let shared =
        Shared { gateway: Arc::clone(&gateway), tls: Arc::clone(&tls), supervisor: supervisor.clone() };
    let server = Server::start(&shared, &listen, listener)?;
    let admin = Admin::new(admin, &gateway, registry, supervisor)
        .map_err(|error| StartError::Admin(admin_address, error))?;
    let reloader = Reloader::new(path, files, Arc::clone(&gateway), backends, tls)?;
    let signals = StopSignals::listen()?;
    if let Some(store) = &gateway.store {
        store.announce(admin.address()?);
    }
    tracing::info!(address = %server.address()?, admin = %admin.address()?, shedding, "listening");
    let fleet = gateway.fleet.as_ref().map(|fleet| {
        (Arc::clone(fleet), supervisor.task("fleet", Arc::clone(fleet).run(Arc::clone(&gateway))))
    });
    drop(supervisor.task("reloader", reloader.run()));
    drop(supervisor.task("admin", admin.run()));
    drop(supervisor.task("shedding", maintain(shedder)));
    let keeper = Keeper { compute, writer, fleet };
    Ok(Running { gateway, supervisor: supervisor.clone(), server, keeper, signals })
}

/// Opens where budgets are kept.
fn keeping(
    config: &Config,
    clock: Clock,
    metrics: &Metrics,
    registry: &mut Registry,
) -> Result<Keeping, StartError> {
    Ok(match &config.store.location {
        StoreLocation::Directory(directory) => Keeping::Alone(Store::open(directory, clock.now())?),
        StoreLocation::Redis(url) => {
            Keeping::Shared(Fleet::new(url, config.store.when_down, clock, metrics, registry)?)
        }
    })
}

/// Keeps the shedding in order, where it is in no worker's way.
async fn maintain(shedder: Arc<Shedder>) {
    let mut tick = tokio::time::interval(MAINTENANCE);
    loop {
        tick.tick().await;
        let shedder = Arc::clone(&shedder);
        let maintaining = tokio::task::spawn_blocking(move || shedder.maintain(Instant::now()));
        if maintaining.await.is_err() {
            tracing::error!("the upkeep of the shedding ended in a panic");
        }
    }
}

/// How often penalties that are over are taken out, and addresses and interfaces followed.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// Loads the encoders of the models in use, so that no call waits for one.
fn preload(loaded: &Loaded) {
    let started = Instant::now();
    let mut encodings: Vec<_> =
        loaded.config.deployments.values().map(|deployment| deployment.facts.encoding).collect();
    encodings.dedup();
    tokens::preload(&encodings);
    let took: Duration = started.elapsed();
    tracing::debug!(milliseconds = took.as_secs_f64() * 1000.0, "encoders loaded");
}

#[expect(clippy::print_stderr, reason = "there may be no log yet, and whoever started it reads this")]
fn report(error: &StartError) -> ExitCode {
    match error {
        StartError::Load(LoadError::Config(errors)) => {
            eprintln!("{errors}");
            ExitCode::from(super::INVALID)
        }
        StartError::Load(LoadError::Tls(_)) => {
            eprintln!("error: {error}");
            ExitCode::from(super::INVALID)
        }
        StartError::Tls(_)
        | StartError::Identity(_)
        | StartError::Fleet(_)
        | StartError::Serve(_)
        | StartError::Watch(_)
        | StartError::Store(_)
        | StartError::Admin(..)
        | StartError::Kernel(_)
        | StartError::Unreadable { .. }
        | StartError::System(_) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
