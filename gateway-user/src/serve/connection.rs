//! One caller's connection: PROXY header, TLS, then HTTP/1.1 or HTTP/2 as was agreed.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::calm::{self, Calm};
use super::door::{self, Entered, Shed};
use super::linger::Lane;
use super::open::OpenConnection;
use super::proxy_protocol;
use super::timed::Timed;
use crate::config::Listen;
use crate::gateway::Gateway;
use crate::kernel::{Caller, Refusal, Seat};
use crate::metrics::{HandshakeResult, ShedReason};
use crate::pipeline::{self, ReplyBody};
use crate::session::{Activity, OpenCall, Session, WorkerState};
use crate::supervise::fault;
use crate::supervise::panics::{Scope, Scoped};

/// Bytes that wait in the kernel, beyond those that the caller's receive window has let out.
const MOST_UNSENT: u32 = 128 * 1024;
/// The longest head of a request: line and headers.
const LONGEST_HEAD: usize = 64 * 1024;
/// The most headers of a request.
const MOST_HEADERS: usize = 128;
/// The most calls open at once on one HTTP/2 connection.
const MOST_STREAMS: u32 = 256;

/// A connection that was accepted, and what serves it.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) gateway: Arc<Gateway>,
    pub(super) worker: Arc<WorkerState>,
    /// What it shares with the worker's others at its end.
    pub(super) lane: Arc<Lane>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) open: OpenConnection,
}

/// Serves a connection to its end, or until it has to make room for another.
pub(super) async fn serve(accepted: Accepted) {
    let activity = Arc::clone(&accepted.open.entered.activity);
    let metrics = Arc::clone(&accepted.gateway.metrics);
    let mut serving = pin!(serve_to_its_end(accepted));
    tokio::select! {
        biased;
        () = serving.as_mut() => {}
        reason = activity.gives_way() => metrics.connection_shed(reason),
    }
}

async fn serve_to_its_end(accepted: Accepted) {
    let Accepted { mut stream, peer, gateway, worker, lane, tls, draining, mut open } = accepted;
    let snapshot = gateway.snapshot();
    let listen = &snapshot.config.listen;
    let Entered { activity, seat, .. } = &mut open.entered;
    let seat = match seat {
        Some(seat) => seat,
        None => match Box::pin(announced(&mut stream, peer, &gateway, activity, listen)).await {
            Ok(announced) => seat.insert(announced),
            Err(Shed) => return,
        },
    };
    let caller = seat.caller;
    if !seat.wait.is_zero() {
        tokio::time::sleep(seat.wait).await;
    }
    let handshake = Box::pin(async {
        stream.set_nodelay(true)?;
        // A caller that takes nothing for so long is gone, whether or not its system still answers (tcp(7)).
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(listen.idle_timeout))?;
        // Else the kernel takes megabytes at once and then nothing until a third of them has left: a slow reader would look
        // like one that does not read.
        socket.set_tcp_notsent_lowat(MOST_UNSENT)?;
        // The costly part comes with the first bytes.
        stream.readable().await?;
        worker.calls_first().await;
        let shaken = TlsAcceptor::from(tls).accept(stream).await;
        if let Err(error) = &shaken
            && is_malformed_tls(error)
        {
            gateway.shedder.refused(caller, &Refusal::MalformedTls, Instant::now());
        }
        shaken
    });
    let Some(stream) = in_time(listen.handshake_timeout, handshake, &gateway, peer).await else { return };
    gateway.metrics.handshake(HandshakeResult::Ok);
    let session = Arc::new(Session {
        gateway: Arc::clone(&gateway),
        worker,
        caller,
        activity: Arc::clone(activity),
        idle_timeout: listen.idle_timeout,
    });
    // Boxed, so that a connection holds the state of its own protocol and not the larger of both, nor of the handshake.
    let ended = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(serve_http2(stream, session, listen.idle_timeout, draining)).await
    } else {
        Box::pin(serve_http1(stream, session, lane, listen, draining)).await
    };
    if let Err(error) = ended {
        if calm::is_flood(&error) {
            gateway.metrics.connection_shed(ShedReason::Frames);
            gateway.shedder.refused(caller, &Refusal::Flood, Instant::now());
        } else if is_malformed_http(&error) {
            gateway.shedder.refused(caller, &Refusal::MalformedHttp, Instant::now());
        }
        tracing::debug!(peer = %peer, error = %error, "connection ended");
    }
    drop(open);
}

/// Learns from a balancer for whom it speaks, and gives that one a seat.
async fn announced(
    stream: &mut TcpStream,
    peer: SocketAddr,
    gateway: &Gateway,
    activity: &Arc<Activity>,
    listen: &Listen,
) -> Result<Seat, Shed> {
    let header = proxy_protocol::source(stream);
    let source = in_time(listen.handshake_timeout, header, gateway, peer).await.ok_or(Shed)?;
    // A balancer that speaks for itself is no more to be cut off than one that speaks for others.
    door::seat(gateway, Caller::Proxied(source.unwrap_or_else(|| peer.ip())), activity)
}

/// A part of the handshake, within the time for it.
async fn in_time<T>(
    patience: Duration,
    part: impl Future<Output = io::Result<T>>,
    gateway: &Gateway,
    peer: SocketAddr,
) -> Option<T> {
    match tokio::time::timeout(patience, part).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            gateway.metrics.handshake(HandshakeResult::Failed);
            tracing::debug!(peer = %peer, error = %error, "no TLS handshake");
            None
        }
        Err(_elapsed) => {
            gateway.metrics.handshake(HandshakeResult::Timeout);
            tracing::debug!(peer = %peer, "no TLS handshake in time");
            None
        }
    }
}

/// Whether a handshake broke off over what the peer sent, rather than because the peer was gone: rustls' own errors come
/// as invalid data.
fn is_malformed_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Whether a connection ended over bytes that are not HTTP, in either version.
fn is_malformed_http(error: &hyper::Error) -> bool {
    let in_http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse() || in_http2.is_some_and(|error| error.is_library() && !error.is_io())
}

/// Serves until the connection ends; once the gateway drains, until the calls that are open have.
async fn serve_http1(
    stream: TlsStream<TcpStream>,
    session: Arc<Session>,
    lane: Arc<Lane>,
    listen: &Listen,
    mut draining: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let activity = Arc::clone(&session.activity);
    let io = Timed::new(stream, activity, listen.idle_timeout, Some(listen.header_timeout));
    let service = service_fn(|request| answer(&session, session.open_call(), request));
    let mut builder = http1::Builder::new();
    // This bounds each read, too. By itself hyper reads half a megabyte of a long body while all other connections wait.
    builder.max_headers(MOST_HEADERS).max_header_size(LONGEST_HEAD).max_buf_size(LONGEST_HEAD);
    let mut connection = builder.serve_connection(io, service);
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
        _ = draining.wait_for(|draining| *draining) => None,
    };
    match ended {
        Some(ended) => ended?,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
        }
    }
    let mut stream = connection.into_parts().io.into_inner();
    // A caller that is gone has taken all that it will.
    if stream.shutdown().await.is_ok() && session.activity.is_cut_short() {
        lane.linger(stream.into_inner().0).await;
    }
    Ok(())
}

/// As [`serve_http1`].
async fn serve_http2(
    stream: TlsStream<TcpStream>,
    session: Arc<Session>,
    idle_timeout: Duration,
    mut draining: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let io = Timed::new(Calm::new(stream), Arc::clone(&session.activity), idle_timeout, None);
    let streams = Streams::default();
    let service = service_fn(|request| {
        let open = session.open_call();
        streams.next.lock().replace(open.clone());
        answer(&session, open, request)
    });
    let mut builder = http2::Builder::new(streams.clone());
    builder.max_concurrent_streams(MOST_STREAMS).max_header_list_size(HTTP2_HEAD);
    let mut connection = pin!(builder.serve_connection(io, service));
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        _ = draining.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Runs the streams of an HTTP/2 connection, each as a task of its own that its call can end: hyper has no other way to
/// reset a stream whose caller takes nothing.
#[derive(Debug, Clone, Default)]
struct Streams {
    /// The call of the stream that is to run next: hyper asks the service for the answer and then runs the stream.
    next: Arc<Mutex<Option<OpenCall>>>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "a call ends by itself, and alone")]
    fn execute(&self, stream: F) {
        let task = tokio::spawn(stream);
        if let Some(open) = self.next.lock().take() {
            open.runs_as(task.abort_handle());
        }
    }
}

/// Boxed, so that its state is gone once the answer has begun: a stream lasts much longer than what leads to it. It is made
/// where it stays, because it is large.
fn answer(
    session: &Arc<Session>,
    open: OpenCall,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>> + use<> {
    let session = Arc::clone(session);
    Scoped::new(
        Scope::Call,
        Box::pin(async move {
            fault::point("call");
            Ok(pipeline::handle(session, open, request).await)
        }),
    )
}

/// [`LONGEST_HEAD`] as HTTP/2 counts it.
const HTTP2_HEAD: u32 = 64 * 1024;
