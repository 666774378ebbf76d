//! An upstream that does what no model service does: whatever a test writes to its connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A listener on loopback whose every request is answered by the same script, each connection on a thread of its own.
/// Dropping it ends no connection that is being answered: scripts end when the peer hangs up.
#[derive(Debug)]
pub struct ScriptedUpstream {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl ScriptedUpstream {
    /// Starts to listen; `script` is given each request's connection once the request has been read.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(
        script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (stopped, script) = (Arc::new(AtomicBool::new(false)), Arc::new(script));
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), script) = (stream, Arc::clone(&script)) else { continue };
                std::thread::spawn(move || serve(stream, &*script));
            }
        });
        Ok(Self { address, stopped })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&mut TcpStream) -> std::io::Result<()>) {
    // However a connection ends is what the test is about.
    while read_request(&mut stream).is_some() && script(&mut stream).and_then(|()| stream.flush()).is_ok() {}
}

/// Reads a request with a `Content-Length`, as the gateway sends them.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0].to_ascii_lowercase());
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
    std::io::copy(&mut stream.take(length.trim().parse().ok()?), &mut std::io::sink()).ok().map(|_| ())
}
