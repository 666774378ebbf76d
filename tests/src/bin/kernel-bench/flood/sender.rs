//! The flood.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gateway_tests::netns::UPLINK;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::bind;
use socket2::{Domain, Socket, Type};

/// How often a few packets are sent: seldom enough to cost little, often enough to overrun no queue.
const PACE: Duration = Duration::from_micros(500);

/// Sends frames, one after the other and over again, at a steady rate; counts them in `sent`.
pub(super) fn flood(frames: &[Vec<u8>], rate: u64, over: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    // Frames as they are, past the sender's own stack; protocol 0 receives none.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("cannot open a packet socket")?;
    let mut interfaces = getifaddrs()?.filter(|interface| interface.interface_name == UPLINK);
    let link =
        interfaces.find_map(|interface| interface.address.filter(|address| address.as_link_addr().is_some()));
    bind(socket.as_raw_fd(), &link.context("the flood has no interface")?)?;
    // Before whatever else the core does, as if it had one to itself.
    rustix::process::setpriority_process(None, -15)?;
    let mut frames = frames.iter().cycle();
    let (started, mut count) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        let due = u64::try_from(started.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000)?;
        for frame in frames.by_ref().take(usize::try_from(due - count)?) {
            // What a full queue does not take is not sent, and not counted.
            if socket.send(frame).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        count = due;
        thread::park_timeout(PACE);
    }
    Ok(())
}
