//! `aoai-simulator`: an Azure OpenAI on loopback, for trying the gateway out and for benchmarks.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use gateway_tests::simulator::{Behaviour, Options, Simulator};

/// An Azure OpenAI on loopback that behaves as documented.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Tokens in an answer.
    #[arg(long, default_value_t = 16)]
    tokens: u64,
    /// Tokens in each event of a stream.
    #[arg(long, default_value_t = 1)]
    chunk_tokens: u64,
    /// Milliseconds between the events of a stream.
    #[arg(long, default_value_t = 0)]
    chunk_delay_ms: u64,
    /// Milliseconds from a request to its response head.
    #[arg(long, default_value_t = 0)]
    first_byte_delay_ms: u64,
    /// Put the time of sending into each event of a stream, as `sent_unix_ns`.
    #[arg(long)]
    stamp: bool,
    /// A deployment and its model, whose bounds calls to it then have; several may be named. Without any, every name
    /// is a deployment.
    #[arg(long, value_name = "NAME=MODEL", value_parser = deployment)]
    deploy: Vec<(String, String)>,
    /// Serve calls whatever key or token they carry.
    #[arg(long)]
    no_auth: bool,
    /// Be as fast as can be: answers made once, no tokens counted, nothing recorded.
    #[arg(long)]
    bench: bool,
    /// Threads that serve.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn deployment(text: &str) -> Result<(String, String), &'static str> {
    let (name, model) = text.split_once('=').ok_or("a deployment is named NAME=MODEL")?;
    Ok((name.to_owned(), model.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments {
        listen,
        tokens,
        chunk_tokens,
        chunk_delay_ms,
        first_byte_delay_ms,
        stamp,
        deploy,
        no_auth,
        bench,
        threads,
    } = Arguments::parse();
    let simulator = Simulator::start(Options {
        listen,
        behaviour: Behaviour {
            tokens,
            chunk_tokens,
            chunk_delay: Duration::from_millis(chunk_delay_ms),
            first_byte_delay: Duration::from_millis(first_byte_delay_ms),
            stamp,
            prompt_tokens: bench.then_some(16),
            ..Behaviour::default()
        },
        check_tokens: !no_auth,
        recorded: 0,
        fixed_answers: bench,
        threads,
        ..Options::default()
    })?;
    simulator.deployments().extend(deploy);
    #[expect(clippy::print_stdout, reason = "the line that whoever started it waits for")]
    {
        println!("listening on {}", simulator.endpoint());
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
