//! The maps, and the few operations on them that need a pointer.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use gateway_ebpf::maps::{
    Address, EVENTS_BYTES, EXEMPT_ENTRIES, Event, KNOWN_ENTRIES, Known, LOCAL_ENTRIES, Limits,
    PENALTY_ENTRIES, RECENT_ENTRIES,
};
use gateway_ebpf::packet::Path;
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;

use super::shared::Shared;

#[map]
static LIMITS: Array<Limits> = Array::with_max_entries(1, 0);
#[map]
static LOCAL: HashMap<Address, u8> = HashMap::with_max_entries(LOCAL_ENTRIES, 0);
#[map]
static EXEMPT_V4: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(EXEMPT_ENTRIES, 0);
#[map]
static EXEMPT_V6: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(EXEMPT_ENTRIES, 0);
#[map]
static PENALTIES: HashMap<Source, u64> = HashMap::with_max_entries(PENALTY_ENTRIES, 0);
#[map]
static RECENT: LruHashMap<Source, u64> = LruHashMap::with_max_entries(RECENT_ENTRIES, 0);
#[map]
static KNOWN: LruHashMap<Source, Known> = LruHashMap::with_max_entries(KNOWN_ENTRIES, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// What to enforce.
#[inline(always)]
pub(super) fn limits() -> Option<&'static Limits> {
    LIMITS.get(0)
}

/// Whether an address is one of the gateway's.
#[inline(always)]
pub(super) fn is_local(limits: &Limits, address: &Address) -> bool {
    limits.addresses.iter().any(|near| near == address)
        || limits.more_addresses != 0 && LOCAL.get_ptr(address).is_some()
}

/// Whether the sender's network is exempt.
#[inline(always)]
pub(super) fn is_exempt(limits: &Limits, path: &Path) -> bool {
    match path {
        Path::V4 { from, .. } => {
            limits.exempt_v4.iter().any(|near| near.holds(*from))
                || limits.more_exempt_v4 != 0 && EXEMPT_V4.get(Key::new(32, *from)).is_some()
        }
        Path::V6 { from, .. } => limits.any_exempt_v6 != 0 && EXEMPT_V6.get(Key::new(128, *from)).is_some(),
    }
}

/// When a source's penalty ends, in nanoseconds of the monotonic clock.
#[inline(always)]
pub(super) fn penalty_end(source: &Source) -> Option<u64> {
    let end = PENALTIES.get_ptr(source)?;
    // SAFETY: a map value stays readable until the program returns; the kernel writes this word whole.
    Some(unsafe { end.read_volatile() })
}

/// What is remembered of a source beyond its last packets: connections held, and the connection rate's word.
#[inline(always)]
pub(super) fn known(source: &Source) -> Option<(Shared, Shared)> {
    let known = KNOWN.get_ptr_mut(source)?;
    // SAFETY: a map value stays valid until the program returns; only its member's address is taken.
    let held = unsafe { &raw mut (*known).held }.cast::<u64>();
    // SAFETY: a map value stays valid until the program returns; only its member's address is taken.
    let word = unsafe { &raw mut (*known).word };
    Some((Shared::new(held), Shared::new(word)))
}

/// Begins to remember a source where packets of others cannot evict it, unless another CPU did so meanwhile.
#[inline(always)]
pub(super) fn remember_known(source: &Source, known: Known) -> Result<(), i32> {
    KNOWN.insert(source, known, u64::from(aya_ebpf::bindings::BPF_NOEXIST))
}

/// The connection rate's word of a source of which no more is known.
#[inline(always)]
pub(super) fn recent(source: &Source) -> Option<Shared> {
    RECENT.get_ptr_mut(source).map(Shared::new)
}

/// Remembers a source's first event. A full map makes room by itself.
#[inline(always)]
pub(super) fn remember_recent(source: &Source, word: u64) -> Result<(), i32> {
    RECENT.insert(source, word, 0)
}

/// Counts a packet on this CPU; its running number there, from 1.
#[inline(always)]
pub(super) fn count(verdict: Verdict) -> u64 {
    let Some(counter) = VERDICTS.get_ptr_mut(verdict.index()) else {
        return 0;
    };
    // SAFETY: the value is this CPU's own, valid until the program returns.
    let seen = unsafe { counter.read() } + 1;
    // SAFETY: the value is this CPU's own, valid until the program returns.
    unsafe { counter.write(seen) };
    seen
}

/// Hands an event to whoever reads them; with no room left it is lost.
#[inline(always)]
pub(super) fn emit(event: Event) {
    if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
        entry.write(event);
        entry.submit(0);
    }
}
