//! The load generator and the canned upstream of `cargo xtask bench`. Each measurement is one run of this program and
//! one line of JSON on its standard output.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use gateway_tests::load::connection::{Request, Target};
use gateway_tests::load::process::ProcessTree;
use gateway_tests::load::streams::Pace;
use gateway_tests::load::window::{Watch, Window};
use gateway_tests::load::{LoadError, calls, certificate, connects, paced, streams, upstream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(about = "Load generator and canned upstream of the benchmark")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve canned answers until killed.
    Upstream { address: SocketAddr },
    /// Write tls.crt and tls.key to a directory.
    Certificate { directory: PathBuf },
    /// Calls over open connections, as many as go through.
    Calls {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        throughput: ThroughputArgs,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// KiB of an agent's request; a small call unless given.
        #[arg(long)]
        agent_kib: Option<usize>,
    },
    /// New connections with one call each, as many as go through.
    Connects {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        throughput: ThroughputArgs,
        #[arg(long, default_value_t = 16)]
        connections: usize,
    },
    /// Small calls at a fixed pace; their latency.
    Paced {
        #[command(flatten)]
        target: TargetArgs,
        #[arg(long, default_value_t = 5000)]
        interval_us: u64,
        #[arg(long, default_value_t = 1000)]
        calls: u32,
    },
    /// Concurrent streams; the delay of their chunks.
    Streams {
        #[command(flatten)]
        target: TargetArgs,
        #[arg(long, default_value_t = 200)]
        streams: u32,
        #[arg(long, default_value_t = 3)]
        repeats: u32,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Many open streams; the proxy's memory.
    Memory {
        #[command(flatten)]
        target: TargetArgs,
        #[arg(long)]
        proxy: u32,
        #[arg(long, default_value_t = 2000)]
        streams: u32,
        #[command(flatten)]
        pace: PaceArgs,
    },
}

#[derive(Debug, Args)]
struct TargetArgs {
    /// Where to call.
    #[arg(long)]
    address: SocketAddr,
    /// Call in clear, as the upstream expects it.
    #[arg(long)]
    plain: bool,
    /// The caller's key.
    #[arg(long, default_value = "none")]
    key: String,
}

impl TargetArgs {
    fn target(&self) -> Result<Target, LoadError> {
        if self.plain { Ok(Target::plain(self.address)) } else { Target::tls(self.address) }
    }
}

#[derive(Debug, Args)]
struct ThroughputArgs {
    /// Process id of the proxy, whose children count as well.
    #[arg(long)]
    proxy: u32,
    #[arg(long)]
    proxy_core: usize,
    #[arg(long)]
    load_core: usize,
    #[arg(long, default_value_t = 500)]
    warm_up_ms: u64,
    #[arg(long, default_value_t = 3000)]
    counted_ms: u64,
}

impl ThroughputArgs {
    const fn window(&self) -> Window {
        Window {
            warm_up: Duration::from_millis(self.warm_up_ms),
            counted: Duration::from_millis(self.counted_ms),
        }
    }

    fn watch(&self) -> Result<Watch, LoadError> {
        let Self { proxy, proxy_core, load_core, warm_up_ms: _, counted_ms: _ } = *self;
        Ok(Watch { proxy: ProcessTree::of(proxy)?, proxy_core, load_core })
    }
}

#[derive(Debug, Clone, Copy, Args)]
struct PaceArgs {
    /// Chunks of content in a stream.
    #[arg(long, default_value_t = 50)]
    chunks: u64,
    /// Milliseconds between two of them.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
}

impl From<PaceArgs> for Pace {
    fn from(PaceArgs { chunks, pause_ms }: PaceArgs) -> Self {
        Self { chunks, pause_ms }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the answer and the error of a command")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::from)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match outcome {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<Value, LoadError> {
    raise_file_limit()?;
    Ok(match command {
        Command::Upstream { address } => {
            upstream::serve(address).await?;
            Value::Null
        }
        Command::Certificate { directory } => {
            certificate::write(&directory)?;
            Value::Null
        }
        Command::Calls { target, throughput, connections, agent_kib } => {
            let (window, watch) = (throughput.window(), throughput.watch()?);
            let request = match agent_kib {
                Some(kib) => Request::agent(target.address, &target.key, kib * 1024),
                None => Request::small(target.address, &target.key),
            };
            json!(calls::run(&target.target()?, request, connections, window, &watch).await?)
        }
        Command::Connects { target, throughput, connections } => {
            let (window, watch) = (throughput.window(), throughput.watch()?);
            json!(connects::run(&target.target()?, &target.key, connections, window, &watch).await?)
        }
        Command::Paced { target, interval_us, calls } => {
            let interval = Duration::from_micros(interval_us);
            json!(paced::run(&target.target()?, &target.key, interval, calls).await?)
        }
        Command::Streams { target, streams, repeats, pace } => {
            json!(streams::delays(&target.target()?, &target.key, streams, repeats, pace.into()).await?)
        }
        Command::Memory { target, proxy, streams, pace } => {
            let proxy = ProcessTree::of(proxy)?;
            json!(streams::memory(&target.target()?, &target.key, streams, pace.into(), &proxy).await?)
        }
    })
}

/// Thousands of streams need as many sockets, twice that in the upstream and the proxy together.
fn raise_file_limit() -> Result<(), LoadError> {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(std::io::Error::from)?;
    Ok(())
}
