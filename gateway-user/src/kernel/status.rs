//! What `aoai-gateway kernel status` and the admin port's `/status` show.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use gateway_ebpf::gcra::Rate;
use gateway_ebpf::held::connections;
use gateway_ebpf::maps::Known;
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;
use serde::Serialize;

use super::config::KernelConfig;
use super::linux::Reading;

/// The kernel part at one moment, at most one second ago.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `kernel.mode` as configured.
    pub mode: &'static str,
    /// Where the programs are; nothing when they are not.
    pub attached: Option<Attachment>,
    /// Why they are not, in one line; nothing when they are, or were not wanted.
    pub absent_because: Option<String>,
    /// What is enforced.
    pub limits: LimitsInForce,
    /// Packets by verdict since the programs were attached; zeros where they are not.
    pub packets: BTreeMap<&'static str, u64>,
    /// How many sources are in each state.
    pub sources: SourceCounts,
    /// The sources that stand out: under penalty first, then by connections held. At most [`TOP_SOURCES`].
    pub top: Vec<SourceStatus>,
}

/// How many sources a status lists.
pub const TOP_SOURCES: usize = 20;

/// Where the programs are attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The interfaces with the XDP program.
    pub interfaces: Vec<AttachedInterface>,
    /// The control group whose sockets are counted.
    pub cgroup: String,
}

/// An interface with the XDP program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedInterface {
    /// What it is called.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// `native`, `generic`, or `gone` with the interface.
    pub mode: &'static str,
}

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsInForce {
    connections_per_second: u32,
    connection_burst: u32,
    concurrent_connections: u32,
    calls_per_second: u32,
    call_burst: u32,
}

/// How many sources are in each state: the metric `gateway_kernel_sources`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceCounts {
    /// Under penalty.
    pub penalised: usize,
    /// Beyond their connection rate now.
    pub over_rate: usize,
    /// With connections established.
    pub connected: usize,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// An IPv4 address or an IPv6 /64.
    pub source: String,
    /// Connections established.
    pub connections: u64,
    /// Whether it is beyond its connection rate now.
    pub over_rate: bool,
    /// Until its penalty ends; nothing when it is under none.
    pub penalty_seconds: Option<f64>,
}

impl From<&KernelConfig> for LimitsInForce {
    fn from(config: &KernelConfig) -> Self {
        Self {
            connections_per_second: config.connections_per_second.get(),
            connection_burst: config.connection_burst.get(),
            concurrent_connections: config.concurrent_connections.get(),
            calls_per_second: config.calls_per_second.get(),
            call_burst: config.call_burst.get(),
        }
    }
}

/// Puts together what was read: `penalties` with the nanoseconds that they still last, and the connections that user space
/// has counted where the kernel has not.
pub(super) fn describe(
    config: &KernelConfig,
    now_ns: u64,
    reading: Option<Reading>,
    penalties: &[(Source, u64)],
    connected: &[(Source, u64)],
    absent_because: Option<String>,
) -> Status {
    let rate = Rate::new(config.connections_per_second, config.connection_burst);
    let mut sources: HashMap<Source, State> = HashMap::new();
    for (source, left_ns) in penalties {
        let left = &mut sources.entry(*source).or_default().penalty_ns;
        *left = (*left).max(*left_ns);
    }
    for (source, count) in connected {
        sources.entry(*source).or_default().connections += count;
    }
    let (packets, attached) = match reading {
        None => (Verdict::ALL.into_iter().map(|verdict| (verdict.label(), 0)).collect(), None),
        Some(Reading { packets, known, attachment }) => {
            for (source, Known { held, word }) in known {
                let over_rate = rate.wait_ns(word, now_ns) > 0;
                let held = connections(held);
                if held > 0 || over_rate {
                    let state = sources.entry(source).or_default();
                    (state.connections, state.over_rate) = (held, over_rate);
                }
            }
            (packets.into_iter().map(|(verdict, count)| (verdict.label(), count)).collect(), Some(attachment))
        }
    };
    let count = |is: fn(&State) -> bool| sources.values().filter(|state| is(state)).count();
    Status {
        mode: config.mode.as_str(),
        attached,
        absent_because,
        limits: LimitsInForce::from(config),
        packets,
        sources: SourceCounts {
            penalised: count(|state| state.penalty_ns > 0),
            over_rate: count(|state| state.over_rate),
            connected: count(|state| state.connections > 0),
        },
        top: top(sources),
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    connections: u64,
    over_rate: bool,
    penalty_ns: u64,
}

fn top(sources: HashMap<Source, State>) -> Vec<SourceStatus> {
    let mut sources: Vec<(Source, State)> = sources.into_iter().collect();
    // By source last, so that a list of equals does not shuffle.
    sources.sort_unstable_by_key(|(source, state)| {
        (Reverse(state.penalty_ns), Reverse(state.over_rate), Reverse(state.connections), *source)
    });
    sources
        .into_iter()
        .take(TOP_SOURCES)
        .map(|(source, state)| SourceStatus {
            source: source.to_string(),
            connections: state.connections,
            over_rate: state.over_rate,
            penalty_seconds: (state.penalty_ns > 0)
                .then(|| Duration::from_nanos(state.penalty_ns).as_secs_f64()),
        })
        .collect()
}
