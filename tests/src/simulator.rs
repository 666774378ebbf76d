//! An Azure OpenAI that behaves as documented, on loopback, with the identity endpoints beside it.
//!
//! It serves chat completions, completions, embeddings and responses on both URL shapes, whole and streamed; refuses what
//! carries a key or lacks a token that it issued itself; keeps the last requests for assertions, and books of what
//! it really processed and generated. [`Behaviour`] says how calls are answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

mod answer;
mod behaviour;
mod body;
mod call;
mod catalogue;
mod chat;
mod completions;
mod compress;
mod deployments;
mod embeddings;
mod fields;
mod filter;
mod fixed;
mod identity;
mod ids;
mod ledger;
mod limits;
mod listen;
mod model;
mod prompt;
mod quota;
mod record;
mod refusal;
mod responses;
mod route;
mod service;
mod stored;
mod words;

pub use behaviour::{Behaviour, Fault, Framing, UsageReport};
pub use deployments::Deployments;
pub use identity::{AUDIENCE, IDENTITY_HEADER, IdentityFault};
pub use ledger::{Burst, Totals};
pub use quota::Quota;
pub use record::Recorded;

use crate::certificate::Authority;
use listen::Door;
use service::Azure;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens for plain HTTP; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listens for TLS too, on a free port of the same address.
    pub tls: bool,
    /// How calls are answered that nothing else is said about.
    pub behaviour: Behaviour,
    /// Refuses calls with a key, or without a token that was issued here.
    pub check_tokens: bool,
    /// How many of the last requests are kept; none for benchmarks.
    pub recorded: usize,
    /// Answers calls without a stream with bytes made once, without counting anything.
    pub fixed_answers: bool,
    /// Keeps when tokens were processed and generated, for [`Simulator::timeline`]; it grows with each of them.
    pub timed: bool,
    /// How long issued tokens hold.
    pub token_lifetime: Duration,
    /// Lets a site of the harness declare the deployments of its configuration, so that calls to them are refused
    /// where Azure would refuse them.
    pub strict_models: bool,
    /// Threads that serve, each with a runtime of its own.
    pub threads: usize,
}

/// A running simulator; dropping it ends it and every connection.
#[derive(Debug)]
pub struct Simulator {
    azure: Arc<Azure>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    authority: Option<Authority>,
    strict_models: bool,
    stop: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: false,
            behaviour: Behaviour::default(),
            check_tokens: true,
            recorded: 1024,
            fixed_answers: false,
            timed: false,
            token_lifetime: Duration::from_hours(1),
            strict_models: true,
            threads: 1,
        }
    }
}

impl Simulator {
    /// Starts a simulator on threads of its own, so that any kind of test can hold it.
    ///
    /// # Errors
    /// When it cannot listen, or make its certificate.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let plain = Door::open(options.listen)?;
        let tls = if options.tls {
            let authority = Authority::new()?;
            let acceptor = authority.acceptor(&[b"http/1.1"])?;
            let door = Door::open(SocketAddr::new(plain.address.ip(), 0))?;
            Some((door, acceptor, authority))
        } else {
            None
        };
        let azure = Arc::new(Azure::new(&options));
        let (stop, stopped) = watch::channel(());
        let mut threads = Vec::new();
        for _ in 0..options.threads.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (listener, azure, stopped) = (plain.duplicate()?, Arc::clone(&azure), stopped.clone());
            let tls = match &tls {
                Some((door, acceptor, _)) => Some((door.duplicate()?, acceptor.clone())),
                None => None,
            };
            threads.push(std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
                runtime.block_on(async move {
                    if let Some((listener, acceptor)) = tls {
                        tokio::spawn(listen::serve(
                            listener,
                            Some(acceptor),
                            Arc::clone(&azure),
                            stopped.clone(),
                        ));
                    }
                    listen::serve(listener, None, azure, stopped).await
                })
            })?);
        }
        let address = plain.address;
        let (tls_address, authority) = match tls {
            Some((door, _, authority)) => (Some(door.address), Some(authority)),
            None => (None, None),
        };
        let strict_models = options.strict_models;
        Ok(Self { azure, address, tls_address, authority, strict_models, stop: Some(stop), threads })
    }

    /// Where it listens for plain HTTP.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its endpoint, as a backend of a gateway's configuration.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The App Service identity endpoint, for `IDENTITY_ENDPOINT`; [`IDENTITY_HEADER`] goes with it.
    #[must_use]
    pub fn identity_endpoint(&self) -> String {
        format!("http://{}/msi/token", self.address)
    }

    /// Entra's authority, for `AZURE_AUTHORITY_HOST`, where TLS was asked for.
    #[must_use]
    pub fn authority_host(&self) -> Option<String> {
        self.tls_address.map(|address| format!("https://localhost:{}", address.port()))
    }

    /// Where it listens for TLS, where that was asked for.
    #[must_use]
    pub const fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The certificate authority of the TLS listener, where that was asked for; its PEM is for `SSL_CERT_FILE`.
    #[must_use]
    pub const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Declares a deployment of a model. From the first on, other names are no deployments, and a model that the
    /// simulator knows has its bounds: `gpt-4o`, `gpt-4o-2024-05-13`.
    pub fn deploy(&self, name: &str, model: &str) {
        self.azure.deployments.declare(name, model);
    }

    /// Limits a deployment, which then answers 429 to what passes the limit.
    pub fn limit(&self, deployment: &str, quota: Quota) {
        self.azure.quotas.set(deployment, quota);
    }

    /// The declared deployments, for whoever changes them later.
    #[must_use]
    pub fn deployments(&self) -> Deployments {
        self.azure.deployments.clone()
    }

    /// Whether a site declares its deployments, see [`Options::strict_models`].
    #[must_use]
    pub const fn strict_models(&self) -> bool {
        self.strict_models
    }

    /// Sets how calls are answered that nothing else is said about.
    pub fn behave(&self, behaviour: Behaviour) {
        self.azure.behaviours.lock().default = behaviour;
    }

    /// Sets how calls to one deployment are answered.
    pub fn behave_for(&self, deployment: &str, behaviour: Behaviour) {
        self.azure.behaviours.lock().by_deployment.insert(deployment.to_owned(), behaviour);
    }

    /// Sets how one coming call is answered, whichever it is for; several queue up.
    pub fn behave_once(&self, behaviour: Behaviour) {
        self.azure.behaviours.lock().next.push_back(behaviour);
    }

    /// What a deployment really did.
    #[must_use]
    pub fn totals(&self, deployment: &str) -> Totals {
        self.azure.ledger.totals(deployment)
    }

    /// When a deployment processed prompts and generated tokens, in order; empty unless it was started `timed`.
    #[must_use]
    pub fn timeline(&self, deployment: &str) -> Vec<Burst> {
        self.azure.ledger.timeline(deployment)
    }

    /// What all deployments really did.
    #[must_use]
    pub fn all_totals(&self) -> Totals {
        self.azure.ledger.all()
    }

    /// The last calls, oldest first, refused ones included.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.azure.calls.all()
    }

    /// The last requests to the identity endpoints, oldest first.
    #[must_use]
    pub fn identity_requests(&self) -> Vec<Recorded> {
        self.azure.identity_calls.all()
    }

    /// Forgets the requests recorded so far.
    pub fn forget_requests(&self) {
        self.azure.calls.clear();
        self.azure.identity_calls.clear();
    }

    /// A token for Azure OpenAI, for a test that calls without a gateway.
    #[must_use]
    pub fn token(&self) -> String {
        self.azure.identity.issue(AUDIENCE).0
    }

    /// How many tokens were issued.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.azure.identity.count()
    }

    /// How many tokens were asked for.
    #[must_use]
    pub fn tokens_asked(&self) -> u64 {
        self.azure.identity.asked()
    }

    /// The tokens that are known, oldest first: none of them may show up in a log or an answer.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.azure.identity.tokens()
    }

    /// Sets how long tokens hold that are issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.azure.identity.set_lifetime(lifetime);
    }

    /// Sets what goes wrong when a token is asked for.
    pub fn set_identity_fault(&self, fault: Option<IdentityFault>) {
        self.azure.identity.set_fault(fault);
    }

    /// Forgets every token issued so far, so that calls with them are refused.
    pub fn revoke_tokens(&self) {
        self.azure.identity.revoke();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked said so on stderr; a drop must not panic too.
            drop(thread.join());
        }
    }
}
