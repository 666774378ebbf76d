//! The measurements: what the load generator is asked to do, and which figures come of it.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::Site;
use super::proxy::{Proxy, Side};
use super::report::{Column, Figure, Report};

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Small calls over open connections
    #[value(alias = "a")]
    Calls,
    /// Latency added to calls at a fixed pace
    #[value(alias = "b")]
    Latency,
    /// Delay added to the chunks of concurrent streams
    #[value(alias = "c")]
    Streams,
    /// New TLS connections, one call each
    #[value(alias = "d")]
    Connections,
    /// Memory, idle and for an open stream
    #[value(alias = "e")]
    Memory,
    /// Agents' calls over open connections: 20 tools and a long conversation
    #[value(alias = "f")]
    Agents,
}

/// How long and how much to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    counted_ms: u32,
    paced_calls: u32,
    stream_repeats: u32,
    open_streams: u32,
}

impl Effort {
    pub(super) const FULL: Self =
        Self { counted_ms: 3000, paced_calls: 1000, stream_repeats: 3, open_streams: 2000 };
    pub(super) const QUICK: Self =
        Self { counted_ms: 1000, paced_calls: 200, stream_repeats: 1, open_streams: 500 };
}

impl Measure {
    /// Measures once on each side, and where latency is compared once without a proxy.
    pub(super) fn run_round(
        self,
        site: &Site,
        sides: &[Side],
        effort: Effort,
        report: &mut Report,
    ) -> Result<()> {
        let direct = match self {
            Self::Latency | Self::Streams => Some(self.quantiles_direct(site, effort, report)?),
            Self::Calls | Self::Connections | Self::Memory | Self::Agents => None,
        };
        for &side in sides {
            let proxy = site.start(side)?;
            let answer =
                site.load(&self.arguments(site, &proxy, effort)).with_context(|| format!("{side:?}"))?;
            progress(&format!("{self:?}, {side:?}: {answer}"));
            self.record(side, &answer, direct, report)?;
        }
        Ok(())
    }

    fn quantiles_direct(self, site: &Site, effort: Effort, report: &mut Report) -> Result<(f64, f64)> {
        let direct = self.direct(site, effort)?;
        let (p50, p99) = self.quantile_figures();
        report.add(p50, Column::Direct, direct.0);
        report.add(p99, Column::Direct, direct.1);
        Ok(direct)
    }

    /// The median and the 99th percentile of what the upstream takes without a proxy, in microseconds.
    pub(super) fn direct(self, site: &Site, effort: Effort) -> Result<(f64, f64)> {
        let mut arguments = self.command(effort);
        arguments.extend(["--plain".to_owned(), format!("--address={}", site.upstream)]);
        let answer = site.load(&arguments).context("directly")?;
        progress(&format!("{self:?}, direct: {answer}"));
        Ok((number(&answer, "p50_us")?, number(&answer, "p99_us")?))
    }

    fn command(self, effort: Effort) -> Vec<String> {
        let Effort { counted_ms, paced_calls, stream_repeats, open_streams } = effort;
        match self {
            Self::Calls => vec!["calls".to_owned(), format!("--counted-ms={counted_ms}")],
            Self::Agents => vec![
                "calls".to_owned(),
                format!("--counted-ms={counted_ms}"),
                "--agent-kib=157".to_owned(),
                "--connections=16".to_owned(),
            ],
            Self::Connections => vec!["connects".to_owned(), format!("--counted-ms={counted_ms}")],
            Self::Latency => vec!["paced".to_owned(), format!("--calls={paced_calls}")],
            Self::Streams => vec!["streams".to_owned(), format!("--repeats={stream_repeats}")],
            Self::Memory => vec![
                "memory".to_owned(),
                format!("--streams={open_streams}"),
                "--chunks=600".to_owned(),
                "--pause-ms=500".to_owned(),
            ],
        }
    }

    /// What the load generator is told to measure a proxy.
    pub(super) fn arguments(self, site: &Site, proxy: &Proxy, effort: Effort) -> Vec<String> {
        let Proxy { address, key, process } = proxy;
        let mut arguments = self.command(effort);
        arguments.extend([format!("--address={address}"), format!("--key={key}")]);
        match self {
            Self::Calls | Self::Connections | Self::Agents => arguments.extend([
                format!("--proxy={}", process.id()),
                format!("--proxy-core={}", site.cores.proxy),
                format!("--load-core={}", site.cores.load),
            ]),
            Self::Memory => arguments.push(format!("--proxy={}", process.id())),
            Self::Latency | Self::Streams => {}
        }
        arguments
    }

    fn record(
        self,
        side: Side,
        answer: &Value,
        direct: Option<(f64, f64)>,
        report: &mut Report,
    ) -> Result<()> {
        let column = Column::Proxy(side);
        match self {
            Self::Calls | Self::Connections | Self::Agents => {
                let (rate, cost) = match self {
                    Self::Calls => (Figure::CallsPerSecond, Figure::CpuPerCall),
                    Self::Agents => (Figure::AgentCallsPerSecond, Figure::CpuPerAgentCall),
                    _ => (Figure::ConnectionsPerSecond, Figure::CpuPerConnection),
                };
                report.add(rate, column, number(answer, "per_second")?);
                report.add(cost, column, number(answer, "proxy_cpu_us")?);
                self.note_contention(side, answer, report)?;
            }
            Self::Latency | Self::Streams => {
                let (p50, p99) = self.quantile_figures();
                let (direct_p50, direct_p99) = direct.unwrap_or_default();
                report.add(p50, column, number(answer, "p50_us")? - direct_p50);
                report.add(p99, column, number(answer, "p99_us")? - direct_p99);
            }
            Self::Memory => {
                let idle = number(answer, "idle_kib")?;
                let growth = number(answer, "open_kib")? - idle;
                report.add(Figure::IdleMemory, column, idle / 1024.0);
                report.add(Figure::MemoryPerStream, column, growth / number(answer, "streams")?);
            }
        }
        Ok(())
    }

    /// A rate is the proxy's only if nothing else held it back; CPU time for one call holds in any case.
    fn note_contention(self, side: Side, answer: &Value, report: &mut Report) -> Result<()> {
        let load = number(answer, "load_core_busy")?;
        let others = number(answer, "proxy_core_busy")? - number(answer, "proxy_busy")?;
        let cost = "read its CPU time rather than its rate";
        if load > SATURATED {
            let percent = load * 100.0;
            report.note(format!("{self:?}, {side:?}: the load's core was {percent:.0} % busy; {cost}"));
        }
        if others > DISTURBED {
            let percent = others * 100.0;
            report
                .note(format!("{self:?}, {side:?}: others used {percent:.0} % of the proxy's core; {cost}"));
        }
        Ok(())
    }

    const fn quantile_figures(self) -> (Figure, Figure) {
        match self {
            Self::Streams => (Figure::ChunkDelayP50, Figure::ChunkDelayP99),
            Self::Calls | Self::Latency | Self::Connections | Self::Memory | Self::Agents => {
                (Figure::LatencyP50, Figure::LatencyP99)
            }
        }
    }
}

pub(super) fn number(answer: &Value, key: &str) -> Result<f64> {
    answer[key].as_f64().with_context(|| format!("bench-load did not print {key}"))
}

#[expect(clippy::print_stderr, reason = "progress of a long command")]
pub(super) fn progress(line: &str) {
    eprintln!("{line}");
}

/// Share of a core's time above which it limits what is measured.
const SATURATED: f64 = 0.95;
/// Share of the proxy's core that interrupts take on an otherwise idle machine, with room.
const DISTURBED: f64 = 0.10;
