//! What each source did, and when that earns it a penalty.
//!
//! Two rules. A source that calls faster than it may is under penalty until its whole burst is free again. A source whose
//! calls are refused, one after another, each sooner than it was told to come back, for more than a whole burst of
//! calls, is under penalty until the time that it was told last. The second rule never strikes a source at which another
//! tenant was served: behind one address (NAT) there may be many, and a neighbour's bad key is not one's own. Nor does the
//! first: there, a call that was refused to another is no call.
//!
//! Whoever else was served there, a source is refused no faster than it may call: beyond that rate each answer waits for
//! its turn. Those without a tenant's key wait for each other, and tenants for each other, so that a neighbour's guesses
//! hold up nobody who has a key. Connections have a rate of their own, beyond which they wait, or are not let in.
//!
//! No clock and no IO: time is an argument, nanoseconds of one monotonic clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_ebpf::gcra::Rate;
use gateway_ebpf::source::Source;

use super::config::KernelConfig;
use super::generations::Generations;
use crate::names::TenantName;

/// Who calls: what calls and refusals are charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Peer {
    /// The sender of the packets.
    Direct(Source),
    /// A client behind a balancer, as its PROXY header says. The kernel never sees it as a source, so that its penalties
    /// are held here only.
    Proxied(Source),
}

/// Why a call, or what should have become one, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No key, or one that is no tenant's.
    UnknownKey,
    /// Bytes that are not TLS.
    MalformedTls,
    /// Bytes that are not HTTP, or a request that breaks it.
    MalformedHttp,
    /// HTTP/2 frames without end that are no calls.
    Flood,
    /// A call of a source under penalty.
    TooFast,
    /// A tenant that has used up a limit of its own.
    Exhausted {
        /// Which.
        tenant: TenantName,
        /// When it was told to come back; nothing where waiting was not said to help.
        retry_after: Option<Duration>,
    },
}

/// What to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceVerdict {
    /// Go on.
    Admit,
    /// Refuse it: the source is under penalty, or is from this call on.
    Refuse {
        /// Until the penalty ends: the `Retry-After` header (RFC 9110, 10.2.3).
        retry_after: Duration,
    },
}

/// How fast a source may call, and connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceLimits {
    calls: Rate,
    call_burst: u32,
    connections: Rate,
}

/// The sources' accounts.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: SourceLimits,
    /// Sources at which no tenant was served yet. Apart, so that a flood of them makes no one else forgotten.
    strangers: Generations<Peer, Account>,
    /// Sources at which a tenant was served.
    known: Generations<Peer, Account>,
    penalties: HashMap<Peer, u64>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Account {
    /// The call rate's word.
    calls: u64,
    /// The connection rate's.
    connections: u64,
    /// The call rate's, for refusals: of who has no tenant's key, and of tenants.
    refusals: [u64; 2],
    /// When the source was last told to come back.
    told_ns: u64,
    /// How many refusals in a row came before that.
    strikes: u32,
    /// The tenants served here: the last one, and the last other one.
    served: [Option<TenantName>; 2],
}

/// How soon a refused source may try again where it was told nothing.
const UNTOLD_PACE: Duration = Duration::from_secs(1);
/// The shortest penalty for calling too fast; anything less is over before it is felt.
const SHORTEST_PENALTY: Duration = Duration::from_secs(1);
/// The longest: a quota may be raised meanwhile, and what comes back too early earns the next.
const LONGEST_PENALTY: Duration = Duration::from_mins(5);
/// The penalty where the source was told nothing.
const UNTOLD_PENALTY: Duration = Duration::from_secs(10);
/// The longest that a connection waits to be let in: about as long as a system takes to try again where the kernel has
/// dropped its first packet (RFC 6298, 2.1).
const LONGEST_QUEUE: Duration = Duration::from_secs(1);
/// What a flood of frames takes of its source's connections.
const FLOOD: Duration = Duration::from_secs(1);
/// The longest that a refusal waits; shorter than callers wait for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl SourceLimits {
    pub(super) const fn of(config: &KernelConfig) -> Self {
        Self {
            calls: Rate::new(config.calls_per_second, config.call_burst),
            call_burst: config.call_burst.get(),
            connections: Rate::new(config.connections_per_second, config.connection_burst),
        }
    }
}

impl Peer {
    /// Whose address it is.
    pub(super) const fn source(self) -> Source {
        match self {
            Self::Direct(source) | Self::Proxied(source) => source,
        }
    }

    /// The address that stands for its source.
    pub(super) fn address(self) -> IpAddr {
        self.source().address()
    }
}

impl Refusal {
    const fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Exhausted { tenant, .. } => Some(tenant),
            Self::UnknownKey | Self::MalformedTls | Self::MalformedHttp | Self::Flood | Self::TooFast => None,
        }
    }

    /// What the penalty for hammering on after it lasts: exactly what was told, within reason.
    fn penalty_ns(&self) -> u64 {
        let told = self.retry_after().filter(|told| !told.is_zero());
        nanos(told.unwrap_or(UNTOLD_PENALTY).min(LONGEST_PENALTY))
    }

    /// Whether a call was charged for it.
    const fn is_of_a_call(&self) -> bool {
        match self {
            Self::UnknownKey | Self::Exhausted { .. } => true,
            Self::MalformedTls | Self::MalformedHttp | Self::Flood | Self::TooFast => false,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after, .. } => *retry_after,
            Self::UnknownKey | Self::MalformedTls | Self::MalformedHttp | Self::Flood | Self::TooFast => None,
        }
    }
}

impl Ledger {
    /// Remembers at most `capacity` sources of each kind, and at most `capacity` penalties.
    pub(super) fn new(limits: SourceLimits, capacity: usize) -> Self {
        Self {
            limits,
            strangers: Generations::new(capacity),
            known: Generations::new(capacity),
            penalties: HashMap::new(),
            capacity,
        }
    }

    /// New limits, from the next call on.
    pub(super) const fn set_limits(&mut self, limits: SourceLimits) {
        self.limits = limits;
    }

    /// Charges a call. A refusal for calling too fast is a new penalty, and comes with its end.
    pub(super) fn charge(&mut self, peer: Peer, now_ns: u64) -> (SourceVerdict, Option<u64>) {
        if let Some(end_ns) = self.penalty_end(peer, now_ns) {
            return (refuse(end_ns, now_ns), None);
        }
        let rate = self.limits.calls;
        let word = self.with_account(peer, |account| {
            let admitted = rate.admit(account.calls, now_ns);
            account.calls = admitted.unwrap_or(account.calls);
            if admitted.is_some() { None } else { Some(account.calls) }
        });
        let Some(word) = word else {
            return (SourceVerdict::Admit, None);
        };
        let full = Duration::from_nanos(word.saturating_sub(now_ns));
        let end_ns = now_ns + nanos(full.clamp(SHORTEST_PENALTY, LONGEST_PENALTY));
        let new = self.penalise(peer, end_ns, now_ns);
        (refuse(end_ns, now_ns), new.then_some(end_ns))
    }

    /// Notes a refusal; the end of a new penalty, when it earned one.
    pub(super) fn refused(&mut self, peer: Peer, refusal: &Refusal, now_ns: u64) -> Option<u64> {
        let SourceLimits { calls: rate, call_burst: allowed, connections } = self.limits;
        if *refusal == Refusal::TooFast {
            return None;
        }
        let told = refusal.retry_after();
        let pace_ns = nanos(told.unwrap_or(UNTOLD_PACE));
        let is_flood = *refusal == Refusal::Flood;
        let earned = self.with_account(peer, |account| {
            account.strikes = if now_ns < account.told_ns { account.strikes.saturating_add(1) } else { 0 };
            account.told_ns = now_ns.saturating_add(pace_ns);
            if is_flood {
                let full = now_ns + connections.tolerance_ns + nanos(LONGEST_QUEUE) + connections.interval_ns;
                account.connections = (account.connections.max(now_ns) + nanos(FLOOD)).min(full);
            }
            if account.serves_another_than(refusal.tenant()) {
                if refusal.is_of_a_call() {
                    account.calls = account.calls.saturating_sub(rate.interval_ns);
                }
                return false;
            }
            if account.strikes <= allowed && !is_flood {
                return false;
            }
            account.strikes = 0;
            true
        });
        if !earned || self.penalty_end(peer, now_ns).is_some() {
            return None;
        }
        let end_ns = now_ns + refusal.penalty_ns();
        self.penalise(peer, end_ns, now_ns).then_some(end_ns)
    }

    /// How long what is refused waits, so that refusals come no faster than calls may.
    pub(super) fn pace(&mut self, peer: Peer, refusal: &Refusal, now_ns: u64) -> Duration {
        let rate = self.limits.calls;
        self.with_account(peer, |account| {
            let [of_nobody, of_tenants] = &mut account.refusals;
            let word = if refusal.tenant().is_some() { of_tenants } else { of_nobody };
            turn(word, rate, LONGEST_WAIT, now_ns).unwrap_or(LONGEST_WAIT)
        })
    }

    /// Charges a connection: how long it waits to be let in, or nothing where that is too long.
    pub(super) fn connect(&mut self, peer: Peer, now_ns: u64) -> Option<Duration> {
        let rate = self.limits.connections;
        self.with_account(peer, |account| turn(&mut account.connections, rate, LONGEST_QUEUE, now_ns))
    }

    /// Notes a call that a tenant was served.
    pub(super) fn accepted(&mut self, peer: Peer, tenant: &TenantName) {
        let mut account = self.take(peer);
        account.strikes = 0;
        account.served(tenant);
        self.known.insert(peer, account);
    }

    /// Lifts a penalty and forgives what led to it. True when there was one.
    pub(super) fn release(&mut self, peer: Peer) -> bool {
        if let Some(account) = self.strangers.peek_mut(&peer) {
            account.forgive();
        }
        if let Some(account) = self.known.peek_mut(&peer) {
            account.forgive();
        }
        self.penalties.remove(&peer).is_some()
    }

    /// Forgets penalties that are over, and says whose they were.
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Peer> {
        self.penalties.extract_if(|_, end_ns| *end_ns <= now_ns).map(|(peer, _)| peer).collect()
    }

    /// Every penalty with its end.
    pub(super) fn penalties(&self) -> impl Iterator<Item = (Peer, u64)> {
        self.penalties.iter().map(|(peer, end_ns)| (*peer, *end_ns))
    }

    fn penalise(&mut self, peer: Peer, end_ns: u64, now_ns: u64) -> bool {
        if self.penalties.len() >= self.capacity {
            self.expire(now_ns);
        }
        // A full map takes no more: who is in it earned that place, and who is not is still refused call by call.
        let room = self.penalties.len() < self.capacity;
        if room {
            self.penalties.insert(peer, end_ns);
        }
        room
    }

    fn penalty_end(&self, peer: Peer, now_ns: u64) -> Option<u64> {
        self.penalties.get(&peer).copied().filter(|end_ns| now_ns < *end_ns)
    }

    fn with_account<T>(&mut self, peer: Peer, change: impl FnOnce(&mut Account) -> T) -> T {
        let mut account = self.take(peer);
        let result = change(&mut account);
        if account.served.iter().any(Option::is_some) {
            self.known.insert(peer, account);
        } else {
            self.strangers.insert(peer, account);
        }
        result
    }

    fn take(&mut self, peer: Peer) -> Account {
        self.known.remove(&peer).or_else(|| self.strangers.remove(&peer)).unwrap_or_default()
    }
}

impl Account {
    fn served(&mut self, tenant: &TenantName) {
        let [last, other] = &mut self.served;
        if last.as_ref() != Some(tenant) {
            *other = last.replace(tenant.clone());
        }
    }

    fn serves_another_than(&self, tenant: Option<&TenantName>) -> bool {
        self.served.iter().flatten().any(|served| Some(served) != tenant)
    }

    const fn forgive(&mut self) {
        self.calls = 0;
        self.connections = 0;
        self.refusals = [0; 2];
        self.strikes = 0;
        self.told_ns = 0;
    }
}

/// The next turn at a rate: how long until then, or nothing where that is longer than `most`, and no turn is taken.
///
/// A word further ahead than that was left by a slower rate, before the limits were changed, and is read as
/// [`Rate::admit`] reads one.
fn turn(word: &mut u64, rate: Rate, most: Duration, now_ns: u64) -> Option<Duration> {
    let earliest = now_ns + rate.tolerance_ns;
    let latest = earliest + nanos(most);
    let start = if *word > latest + 2 * rate.interval_ns { earliest } else { (*word).max(now_ns) };
    (start <= latest).then(|| {
        *word = start + rate.interval_ns;
        Duration::from_nanos(start.saturating_sub(earliest))
    })
}

const fn refuse(end_ns: u64, now_ns: u64) -> SourceVerdict {
    SourceVerdict::Refuse { retry_after: Duration::from_nanos(end_ns.saturating_sub(now_ns)) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
