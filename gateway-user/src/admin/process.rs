//! The process as the system sees it, under the names that all of Prometheus' client libraries use, and which build it is.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// Reads /proc when it is asked; a figure that the system does not give is left out.
#[derive(Debug)]
pub(super) struct Process;

/// What /proc/self/stat says of the process (proc(5)), in the system's units.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Of CPU, in user mode and in the kernel together.
    ticks: u64,
    /// From the boot to the process's start.
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut build = encoder.encode_descriptor(
            "gateway_build_info",
            "The gateway's build: 1",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", crate::VERSION), ("commit", crate::COMMIT)];
        ConstGauge::new(1_i64).encode(build.encode_family(&labels)?)?;

        let per_second = ratio(rustix::param::clock_ticks_per_second());
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let cpu = ConstCounter::new(ratio(stat.ticks) / per_second);
            let help = "CPU time that the process has used, in user mode and in the kernel";
            put(&mut encoder, "process_cpu_seconds", help, MetricType::Counter, &cpu)?;
            let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            let resident = stat.resident_pages.saturating_mul(page);
            gauge(&mut encoder, "process_resident_memory_bytes", "Memory of the process in RAM", resident)?;
            let help = "Address space of the process";
            gauge(&mut encoder, "process_virtual_memory_bytes", help, stat.virtual_bytes)?;
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_seconds) {
                let started = ConstGauge::new(ratio(boot) + ratio(stat.started_ticks) / per_second);
                let help = "When the process was started, in Unix time";
                put(&mut encoder, "process_start_time_seconds", help, MetricType::Gauge, &started)?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = u64::try_from(open.count()).unwrap_or(u64::MAX);
            gauge(&mut encoder, "process_open_fds", "File descriptors that the process has open", open)?;
        }
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        gauge(&mut encoder, "process_max_fds", "File descriptors that the process may have open", most)
    }
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The command's name is in parentheses, and may hold some.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // The first of these fields is the third of proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)?.checked_add(field(15)?)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the system was started, in Unix time, from /proc/stat.
fn boot_seconds(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    put(encoder, name, help, MetricType::Gauge, &value)
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, kind)?)
}

#[expect(clippy::cast_precision_loss, reason = "seconds for a metric: 53 bits are enough")]
const fn ratio(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_process_are_found_whatever_its_name() {
        let line = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194560 9 0 0 0 120 34 0 0 20 0 5 0 98765 20480000 2500 \
                    18446744073709551615 1 1";
        let stat =
            Stat { ticks: 154, started_ticks: 98_765, virtual_bytes: 20_480_000, resident_pages: 2_500 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("4711 (a) S 1"), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1709212455\nprocesses 7\n"), Some(1_709_212_455));
    }

    #[test]
    fn this_process_has_figures() {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(stat.resident_pages > 0 && stat.virtual_bytes > 0 && stat.started_ticks > 0, "{stat:?}");
        assert!(boot_seconds(&fs::read_to_string("/proc/stat").unwrap()).is_some_and(|boot| boot > 0));
    }
}
