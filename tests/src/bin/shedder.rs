//! As much of the gateway as the kernel part sees: it listens, sheds, and answers every line with the same line.
//!
//! A process of its own, for tests that kill one, drop a process's privileges, or measure.
#![expect(clippy::print_stdout, reason = "how tests follow it")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use gateway_user::kernel::{Attach, Interface, InterfaceName, KernelConfig, Mode, Shedder, drop_privileges};

/// A listener with kernel shedding.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    interface: Option<InterfaceName>,
    #[arg(long, default_value = "50")]
    connections_per_second: NonZeroU32,
    #[arg(long, default_value = "100")]
    connection_burst: NonZeroU32,
    #[arg(long, default_value = "200")]
    concurrent_connections: NonZeroU32,
    #[arg(long, value_enum, default_value = "on")]
    shedding: Shedding,
    /// Attach in the network stack.
    #[arg(long)]
    generic: bool,
    /// Give up every capability once attached, and say which are left.
    #[arg(long)]
    drop_privileges: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shedding {
    On,
    Off,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let config = KernelConfig {
        mode: match arguments.shedding {
            Shedding::On => Mode::Required,
            Shedding::Off => Mode::Off,
        },
        interface: arguments.interface.map_or(Interface::Auto, Interface::Named),
        attach: if arguments.generic { Attach::Generic } else { Attach::Auto },
        connections_per_second: arguments.connections_per_second,
        connection_burst: arguments.connection_burst,
        concurrent_connections: arguments.concurrent_connections,
        exempt: Vec::new(),
        ..KernelConfig::default()
    };
    let listener = TcpListener::bind(arguments.listen).context("cannot listen")?;
    let shedder = Shedder::attach(config.clone(), listener.local_addr()?)?;
    if arguments.drop_privileges {
        drop_privileges()?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let left = status.lines().find(|line| line.starts_with("CapEff:")).context("no capabilities told")?;
        println!("{left}");
        shedder.reconfigure(config)?;
        shedder.status(Instant::now())?;
        shedder.maintain(Instant::now());
        println!("maps work");
    }
    println!("ready {}", listener.local_addr()?);
    thread::scope(|scope| {
        scope.spawn(|| maintain(&shedder));
        for stream in listener.incoming().flatten() {
            scope.spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn maintain(shedder: &Shedder) {
    loop {
        thread::park_timeout(Duration::from_secs(1));
        shedder.maintain(Instant::now());
    }
}

/// Until either side has had enough: a peer that goes away is no error here.
fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
