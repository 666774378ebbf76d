//! Shedding: who floods is dropped in the kernel, before it costs anything.
//!
//! The [`Shedder`] keeps an account for each source, says which calls to refuse, and hands penalties to the kernel
//! programs. Without them (not wanted, or impossible here) the same calls are refused, only later and at a higher price.

mod config;
mod connections;
mod crowd;
mod error;
mod generations;
mod ledger;
mod linux;
mod status;

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gateway_ebpf::maps::PENALTY_ENTRIES;
use gateway_ebpf::source::Source;
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

pub use self::config::{
    Attach, DEFAULT_CALL_BURST, DEFAULT_CALLS_PER_SECOND, DEFAULT_CONCURRENT_CONNECTIONS,
    DEFAULT_CONNECTION_BURST, DEFAULT_CONNECTIONS_PER_SECOND, Interface, InterfaceName, InvalidInterfaceName,
    KernelConfig, Mode,
};
pub use self::error::KernelError;
pub use self::ledger::{Refusal, SourceVerdict};
pub use self::linux::{Programs, drop_privileges};
pub use self::status::{
    AttachedInterface, Attachment, LimitsInForce, SourceCounts, SourceStatus, Status, TOP_SOURCES,
};

pub(crate) use self::connections::Seat;
use self::crowd::Crowd;
pub(crate) use self::crowd::{Guest, Idle};
use self::ledger::{Ledger, Peer, SourceLimits};
use self::linux::{Kernel, Reading};
use crate::names::TenantName;

/// Who a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The sender of the packets.
    Direct(IpAddr),
    /// A client behind a balancer, as its PROXY header says: charged in user space only, since the packets' source is the
    /// balancer.
    Proxied(IpAddr),
}

impl Caller {
    /// Its address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        match self {
            Self::Direct(address) | Self::Proxied(address) => address,
        }
    }
}

/// Accounts, penalties and, where it is attached, the kernel part. Shared by all workers.
#[derive(Debug)]
pub struct Shedder {
    config: ArcSwap<KernelConfig>,
    /// By source, so that workers seldom meet at one lock.
    ledgers: Box<[Mutex<Ledger>]>,
    crowd: Mutex<Crowd>,
    hasher: RandomState,
    clock: Clock,
    kernel: Option<Kernel>,
    absent_because: Option<String>,
    last_status: Mutex<Option<(Instant, Arc<Status>)>>,
}

/// Relates [`Instant`] to the number that the kernel programs compare with.
#[derive(Debug)]
struct Clock {
    started: Instant,
    started_ns: u64,
}

const SHARDS: usize = 16;

/// How old a status may be: counters are read no more often than this, however often they are asked for.
const STATUS_AGE: Duration = Duration::from_secs(1);

impl Shedder {
    /// Attaches the kernel part for a listener, as the mode says.
    ///
    /// # Errors
    /// What is in the way, in mode `required`. In mode `auto` it is logged and shown by [`Shedder::status`] instead.
    pub fn attach(config: KernelConfig, listener: SocketAddr) -> Result<Self, KernelError> {
        match config.mode {
            Mode::Off => Self::new(config, None, None),
            Mode::Required => {
                let kernel = Kernel::attach(&config.by_packets(), listener)?;
                Self::new(config, Some(kernel), None)
            }
            Mode::Auto => match Kernel::attach(&config.by_packets(), listener) {
                Ok(kernel) => Self::new(config, Some(kernel), None),
                Err(error) => {
                    let because = describe(&error);
                    tracing::warn!(because, "running without kernel shedding");
                    Self::new(config, None, Some(because))
                }
            },
        }
    }

    fn new(
        config: KernelConfig,
        kernel: Option<Kernel>,
        absent_because: Option<String>,
    ) -> Result<Self, KernelError> {
        let limits = SourceLimits::of(&config);
        let capacity = PENALTY_ENTRIES as usize / SHARDS;
        let ledgers = (0..SHARDS).map(|_| Mutex::new(Ledger::new(limits, capacity))).collect();
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            ledgers,
            crowd: Mutex::default(),
            hasher: RandomState::new(),
            clock: Clock::new()?,
            kernel,
            absent_because,
            last_status: Mutex::new(None),
        })
    }

    /// Whether the kernel part is attached.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        self.kernel.is_some()
    }

    /// Enforces other limits from now on, without detaching. Mode, interface and attachment stay as they were at start.
    ///
    /// # Errors
    /// When the kernel does not take them; user space has them all the same.
    pub fn reconfigure(&self, config: KernelConfig) -> Result<(), KernelError> {
        let running = self.config.load();
        let config = KernelConfig {
            mode: running.mode,
            interface: running.interface.clone(),
            attach: running.attach,
            ..config
        };
        let limits = SourceLimits::of(&config);
        let by_packets = config.by_packets();
        let kernel = self.kernel.as_ref().map_or(Ok(()), |kernel| kernel.reconfigure(&by_packets));
        for ledger in &self.ledgers {
            ledger.lock().set_limits(limits);
        }
        let exempt_now: Vec<Peer> = self
            .penalties()
            .into_iter()
            .map(|(peer, _)| peer)
            .filter(|peer| match peer {
                Peer::Direct(_) => by_packets.exempts(peer.address()),
                Peer::Proxied(_) => config.exempts(peer.address()),
            })
            .collect();
        self.config.store(Arc::new(config));
        for peer in exempt_now {
            self.ledger(peer).lock().release(peer);
            self.pardon(peer);
        }
        kernel
    }

    /// Charges a call to its source, before anything is spent on it.
    #[must_use]
    pub fn charge_call(&self, caller: Caller, now: Instant) -> SourceVerdict {
        let Some(peer) = self.peer(caller) else {
            return SourceVerdict::Admit;
        };
        let now_ns = self.clock.nanos(now);
        let (verdict, penalty) = self.ledger(peer).lock().charge(peer, now_ns);
        self.enforce(peer, penalty, now_ns);
        verdict
    }

    /// Notes that a call, or what should have become one, was refused. Says how long what answers it, or the next call of
    /// its connection, is to wait, so that no source is refused faster than it may call.
    pub fn refused(&self, caller: Caller, refusal: &Refusal, now: Instant) -> Duration {
        let Some(peer) = self.peer(caller) else { return Duration::ZERO };
        let now_ns = self.clock.nanos(now);
        let (penalty, wait) = {
            let mut ledger = self.ledger(peer).lock();
            (ledger.refused(peer, refusal, now_ns), ledger.pace(peer, refusal, now_ns))
        };
        self.enforce(peer, penalty, now_ns);
        wait
    }

    /// Notes that a tenant's call was admitted: others' refusals no longer count against its source.
    pub fn accepted(&self, caller: Caller, tenant: &TenantName) {
        if let Some(peer) = self.peer(caller) {
            self.ledger(peer).lock().accepted(peer, tenant);
        }
    }

    /// Lifts a source's penalty, direct or proxied, and forgives what led to it. True when there was one.
    ///
    /// # Errors
    /// When the kernel's maps cannot be written.
    pub fn release(&self, address: IpAddr) -> Result<bool, KernelError> {
        let Some(source) = Source::from_address(address) else {
            return Ok(false);
        };
        let direct = self.ledger(Peer::Direct(source)).lock().release(Peer::Direct(source));
        let proxied = self.ledger(Peer::Proxied(source)).lock().release(Peer::Proxied(source));
        if let Some(kernel) = &self.kernel {
            kernel.pardon(source)?;
        }
        self.last_status.lock().take();
        Ok(direct || proxied)
    }

    /// Ends penalties that are over, and follows addresses and interfaces as they come and go. To be called about once a
    /// second, where blocking for a millisecond is no harm. Logs what is in its way.
    pub fn maintain(&self, now: Instant) {
        let now_ns = self.clock.nanos(now);
        let expired: Vec<Peer> =
            self.ledgers.iter().flat_map(|ledger| ledger.lock().expire(now_ns)).collect();
        for peer in expired {
            self.pardon(peer);
        }
        if let Some(kernel) = &self.kernel
            && let Err(error) = kernel.follow()
        {
            tracing::warn!(because = describe(&error), "kernel shedding is incomplete");
        }
    }

    /// The kernel part, the limits and the sources that stand out; read at most once a second.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn status(&self, now: Instant) -> Result<Arc<Status>, KernelError> {
        let mut last = self.last_status.lock();
        if let Some((read, status)) = &*last
            && now.saturating_duration_since(*read) < STATUS_AGE
        {
            return Ok(Arc::clone(status));
        }
        let status = Arc::new(self.status_now(now)?);
        *last = Some((now, Arc::clone(&status)));
        Ok(status)
    }

    /// The same, read anew: for who asks seldom.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn status_now(&self, now: Instant) -> Result<Status, KernelError> {
        let reading = self.kernel.as_ref().map(Kernel::read).transpose()?;
        Ok(self.describe(reading, self.clock.nanos(now)))
    }

    fn describe(&self, reading: Option<Reading>, now_ns: u64) -> Status {
        let config = self.config.load();
        let penalties: Vec<_> = self
            .penalties()
            .into_iter()
            .filter(|(_, end_ns)| now_ns < *end_ns)
            .map(|(peer, end_ns)| (peer.source(), end_ns - now_ns))
            .collect();
        // The kernel's own counts are those that its program goes by.
        let connected = if reading.is_some() { Vec::new() } else { self.connected() };
        let connected: Vec<_> =
            connected.into_iter().map(|(peer, count)| (peer.source(), count as u64)).collect();
        status::describe(&config, now_ns, reading, &penalties, &connected, self.absent_because.clone())
    }

    fn penalties(&self) -> Vec<(Peer, u64)> {
        self.ledgers.iter().flat_map(|ledger| ledger.lock().penalties().collect::<Vec<_>>()).collect()
    }

    fn peer(&self, caller: Caller) -> Option<Peer> {
        let address = caller.address();
        if self.config.load().exempts(address) {
            return None;
        }
        let source = Source::from_address(address)?;
        Some(match caller {
            Caller::Direct(_) => Peer::Direct(source),
            Caller::Proxied(_) => Peer::Proxied(source),
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the remainder is used")]
    fn ledger(&self, peer: Peer) -> &Mutex<Ledger> {
        let shard = self.hasher.hash_one(peer) as usize % SHARDS;
        &self.ledgers[shard]
    }

    /// Tells of a new penalty, and hands it to the kernel.
    fn enforce(&self, peer: Peer, penalty: Option<u64>, now_ns: u64) {
        let Some(end_ns) = penalty else { return };
        let seconds = Duration::from_nanos(end_ns.saturating_sub(now_ns)).as_secs_f64();
        let proxied = matches!(peer, Peer::Proxied(_));
        tracing::info!(source = %peer.source(), proxied, seconds, "source under penalty");
        if let (Peer::Direct(source), Some(kernel)) = (peer, &self.kernel)
            && let Err(error) = kernel.penalise(source, end_ns)
        {
            tracing::warn!(%source, because = describe(&error), "a penalty is enforced in user space only");
        }
    }

    /// Takes a penalty out of the kernel.
    fn pardon(&self, peer: Peer) {
        if let (Peer::Direct(source), Some(kernel)) = (peer, &self.kernel)
            && let Err(error) = kernel.pardon(source)
        {
            tracing::warn!(%source, because = describe(&error), "a penalty that is over stays in the map");
        }
    }
}

impl Clock {
    fn new() -> Result<Self, KernelError> {
        let started = Instant::now();
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_err(|errno| KernelError::System { what: "the monotonic clock", source: errno.into() })?;
        let started_ns = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { started, started_ns })
    }

    /// An instant in nanoseconds of `CLOCK_MONOTONIC`.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_nanos();
        self.started_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// An error with what caused it, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        // Some errors repeat their cause in their own words.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(text.lines().next().unwrap_or_default());
        }
        cause = next.source();
    }
    line
}
