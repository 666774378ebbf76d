//! The shedding, for operators: its state, its counters, and a way to lift a penalty.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};

use super::json as answer;
use crate::kernel::{self, Shedder, SourceCounts, Status};

/// The page with the shedding's state.
pub(crate) const STATUS: &str = "/kernel";
/// Where a penalty is lifted: `?source=` an address, or a /64 as the state lists it.
pub(crate) const RELEASE: &str = "/kernel/release";

/// Packets by verdict and sources by state, as of at most a second ago.
#[derive(Debug)]
pub(super) struct Packets(pub(super) Arc<Shedder>);

impl Collector for Packets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = match self.0.status(Instant::now()) {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(because = kernel::describe(&error), "no metrics of the shedding");
                return Ok(());
            }
        };
        let Status { packets, sources, .. } = &*status;
        let help = "Packets to the gateway by what the kernel program did with them";
        let mut family =
            encoder.encode_descriptor("gateway_kernel_packets", help, None, MetricType::Counter)?;
        for (verdict, count) in packets {
            ConstCounter::new(*count).encode(family.encode_family(&[("verdict", *verdict)])?)?;
        }
        let help = "Sources that the shedding has its eye on";
        let mut family =
            encoder.encode_descriptor("gateway_kernel_sources", help, None, MetricType::Gauge)?;
        let SourceCounts { penalised, over_rate, connected } = *sources;
        for (state, count) in [("penalised", penalised), ("over_rate", over_rate), ("connected", connected)] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

/// The shedding's state, or why it cannot be read.
pub(super) fn status(shedder: &Shedder) -> Value {
    let status = shedder.status(Instant::now()).map_err(|error| kernel::describe(&error));
    let status = status.and_then(|status| serde_json::to_value(&*status).map_err(|error| error.to_string()));
    status.unwrap_or_else(|error| json!({"error": error}))
}

/// Lifts the penalty of the source that the query names.
pub(super) fn release(shedder: &Shedder, query: Option<&str>) -> Response<Full<Bytes>> {
    let Some(address) = source(query.unwrap_or_default()) else {
        let problem = "?source= must be an address, or an IPv6 /64";
        return answer(StatusCode::BAD_REQUEST, &json!({"error": problem}));
    };
    match shedder.release(address) {
        Ok(released) => {
            tracing::info!(source = %address, released, "an operator asked for a source's release");
            answer(StatusCode::OK, &json!({"released": released}))
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": kernel::describe(&error)})),
    }
}

fn source(query: &str) -> Option<IpAddr> {
    let (_, value) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "source")?;
    parse_source(&value)
}

/// An address, with or without the length of the prefix that it stands for.
pub(crate) fn parse_source(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('/') {
        None => text,
        Some((address, length)) if length == if address.contains(':') { "64" } else { "32" } => address,
        Some(_) => return None,
    };
    address.parse().ok()
}
