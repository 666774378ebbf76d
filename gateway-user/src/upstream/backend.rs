//! A backend as the data path sees it: where to connect, and with which token.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::access::{Access, Known};
use super::breaker::{Breaker, FIRST_PAUSE, next_pause};
use super::connection::Connection;
use super::dial::connect_tcp;
use super::identity::TokenSlot;
use crate::config;
use crate::limits::Clock;
use crate::model::Model;
use crate::names::BackendName;
use crate::tls::explain;

/// The longest silence in an answer of a model that does not reason, and of a caller that reads, where the configuration does
/// not say.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An Azure OpenAI resource that calls can be forwarded to.
#[derive(Debug)]
pub struct Backend {
    /// What logs and metrics call it.
    pub name: BackendName,
    /// Lower numbers first.
    pub priority: u32,
    /// Its share among those of equal priority.
    pub weight: NonZeroU32,
    timeout: Option<Duration>,
    stream_idle_timeout: Option<Duration>,
    /// What comes before a forwarded path.
    pub base_path: String,
    /// The key of its idle connections.
    pub(crate) authority: Arc<str>,
    /// The `Host` header.
    pub(crate) host_header: HeaderValue,
    host: String,
    port: u16,
    connect_timeout: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// `None` where no identity is configured.
    token: Option<Arc<TokenSlot>>,
    access: Access,
    breaker: Breaker,
    clock: Clock,
}

/// What metrics show of a backend.
#[derive(Debug)]
pub struct Gauges {
    /// 1 while it takes connections, else 0.
    pub up: Gauge,
    /// 1 while it refuses the gateway's identity for want of a role, else 0.
    pub role_missing: Gauge,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address, or none accepts.
    #[error("cannot connect to {0}: {1}")]
    Tcp(Arc<str>, std::io::Error),
    /// The TLS handshake failed.
    #[error("no TLS with {0}: {tls}", tls = explain::connection(.1))]
    Tls(Arc<str>, std::io::Error),
    /// Not within the connect timeout.
    #[error("no connection to {0} within {1:?}")]
    Timeout(Arc<str>, Duration),
    /// It was not tried, because connections to it failed before; the next trial is so far away.
    #[error("{0} is out")]
    Out(Arc<str>, Duration),
}

/// Why the token cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoToken;

impl Backend {
    /// Prepares a configured backend, whose state is shown by `gauges`.
    #[must_use]
    pub fn new(
        backend: &config::Backend,
        tls: &Arc<ClientConfig>,
        token: Option<Arc<TokenSlot>>,
        clock: Clock,
        gauges: Gauges,
    ) -> Self {
        let endpoint = &backend.endpoint;
        let tls = endpoint.tls().then(|| (Arc::clone(tls), endpoint.server_name().clone()));
        let authority = endpoint.authority().as_str();
        Self {
            name: backend.name.clone(),
            priority: backend.priority,
            weight: backend.weight,
            timeout: backend.timeout,
            stream_idle_timeout: backend.stream_idle_timeout,
            base_path: endpoint.base_path().to_owned(),
            authority: Arc::from(format!("{}://{authority}", endpoint.scheme())),
            host_header: HeaderValue::try_from(authority).unwrap_or(HeaderValue::from_static("")),
            host: endpoint.host().to_owned(),
            port: endpoint.port(),
            connect_timeout: backend.connect_timeout,
            tls,
            token,
            access: Access::new(gauges.role_missing),
            breaker: Breaker::new(gauges.up),
            clock,
        }
    }

    /// The `Authorization` header for a request to it; `None` where no identity is configured.
    ///
    /// # Errors
    /// When an identity is configured and there is no token that still holds.
    pub(crate) fn authorization(&self, utc_seconds: u64) -> Result<Option<HeaderValue>, NoToken> {
        match &self.token {
            None => Ok(None),
            Some(slot) => slot.header(utc_seconds).map(Some).ok_or(NoToken),
        }
    }

    /// How long the head of an answer of `model` may take, from the start of the request.
    #[must_use]
    pub fn timeout(&self, model: &Model) -> Duration {
        self.timeout.unwrap_or(model.longest_silence)
    }

    /// How long `model` may be silent between two pieces of an answer.
    #[must_use]
    pub fn idle_timeout(&self, model: &Model) -> Duration {
        let by_model = if model.reasons { model.longest_silence } else { STREAM_IDLE_TIMEOUT };
        self.stream_idle_timeout.unwrap_or(by_model)
    }

    /// How long a caller may take nothing of an answer.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.stream_idle_timeout.unwrap_or(STREAM_IDLE_TIMEOUT)
    }

    /// Where its identity tokens are; `None` where no identity is configured.
    #[must_use]
    pub fn identity(&self) -> Option<&TokenSlot> {
        self.token.as_deref()
    }

    /// What its answers told of the gateway's identity.
    #[must_use]
    pub fn access(&self) -> Known {
        self.access.known()
    }

    /// Takes note of whether an answer refuses the gateway itself; `body` is as much of it as is there.
    pub(crate) fn saw_answer(&self, status: StatusCode, body: &VecDeque<Bytes>) {
        if self.token.is_some() {
            self.access.saw(&self.name, status, body, self.clock.now());
        }
    }

    /// Whether a call could be authorised at that moment.
    #[must_use]
    pub fn is_authorised(&self, utc_seconds: u64) -> bool {
        self.authorization(utc_seconds).is_ok()
    }

    /// Whether calls open connections to it; when not, it is tried beside them until it is back.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.breaker.out(self.clock.now()).is_none()
    }

    /// Opens a connection to it, unless it is out. After a few failures in a row it is.
    #[expect(clippy::disallowed_methods, reason = "an attempt ends by itself, and its call hears of it")]
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Box<Connection>, ConnectError> {
        if let Some(wait) = self.breaker.out(self.clock.now()) {
            return Err(ConnectError::Out(Arc::clone(&self.authority), wait));
        }
        // In a task of its own, so that a backend is found to be silent even if no caller waits for that.
        let connecting = tokio::spawn(Arc::clone(self).connect_and_note());
        connecting.await.unwrap_or_else(|ended| {
            Err(ConnectError::Tcp(Arc::clone(&self.authority), std::io::Error::other(ended)))
        })
    }

    /// Connects, and tells the breaker how that ended.
    #[expect(
        clippy::disallowed_methods,
        reason = "however the trials end, calls find out for themselves again"
    )]
    async fn connect_and_note(self: Arc<Self>) -> Result<Box<Connection>, ConnectError> {
        let begun = self.clock.now();
        let connected = self.try_to_connect().await;
        match &connected {
            Ok(_connection) => self.breaker.succeeded(self.clock.now()),
            // Of all that fail together one line is enough.
            Err(error) if self.breaker.failed(begun, self.clock.now()) => {
                tracing::warn!(backend = %self.name, error = %error, "cannot connect to backend: it is out");
                tokio::spawn(try_until_back(Trials(Arc::downgrade(&self))));
            }
            Err(error) => {
                tracing::debug!(backend = %self.name, error = %error, "cannot connect to backend");
            }
        }
        connected
    }

    async fn try_to_connect(&self) -> Result<Box<Connection>, ConnectError> {
        let authority = || Arc::clone(&self.authority);
        let connecting = async {
            let tcp =
                connect_tcp(&self.host, self.port).await.map_err(|e| ConnectError::Tcp(authority(), e))?;
            tcp.set_nodelay(true).map_err(|e| ConnectError::Tcp(authority(), e))?;
            let transport = match &self.tls {
                None => Either::Left(tcp),
                Some((config, name)) => {
                    let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await;
                    Either::Right(Box::new(tls.map_err(|e| ConnectError::Tls(authority(), e))?))
                }
            };
            Ok(Box::new(Connection::new(transport)))
        };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectError::Timeout(authority(), self.connect_timeout)),
        }
    }
}

/// The trials of a backend that is out. However they end, calls may find out for themselves again.
struct Trials(Weak<Backend>);

impl Drop for Trials {
    fn drop(&mut self) {
        if let Some(backend) = self.0.upgrade() {
            backend.breaker.close(backend.clock.now());
        }
    }
}

/// Connects to a backend that is out, less and less often, until it can be done or nobody uses the backend any more.
async fn try_until_back(trials: Trials) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(backend) = trials.0.upgrade() else { return };
        match backend.try_to_connect().await {
            Ok(_connection) => {
                tracing::info!(backend = %backend.name, "backend is back");
                return;
            }
            Err(error) => {
                pause = next_pause(pause);
                backend.breaker.stay_open(backend.clock.now(), pause);
                tracing::debug!(backend = %backend.name, error = %error, "backend is still out");
            }
        }
    }
}
