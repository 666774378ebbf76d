//! The labels of the data path's metrics, and how their values are written.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use super::family::OfTenant;
use crate::ledger::Kind;
use crate::names::{BackendName, DeploymentName, ModelName, TenantName};
use crate::supervise::panics::Scope;

impl OfTenant for TenantReason {
    fn tenant(&self) -> Option<&TenantName> {
        Some(&self.tenant)
    }
}

impl OfTenant for RequestLabels {
    fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref()
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// A connection.
    Ok,
    /// The peer's bytes or certificate were refused, or it refused ours.
    Failed,
    /// Not done within the handshake timeout.
    Timeout,
}

impl EncodeLabelValue for HandshakeResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// Why a connection was not let in, or was closed, for its source's or for others' sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// Its source connects faster than it may.
    Rate,
    /// Its source has as many connections as it may.
    Concurrent,
    /// The process has.
    Full,
    /// It sent HTTP/2 frames without end that were no calls.
    Frames,
}

impl EncodeLabelValue for ShedReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Rate => "rate",
            Self::Concurrent => "concurrent",
            Self::Full => "full",
            Self::Frames => "frames",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

macro_rules! label_values {
    ($($name:ty),+) => {$(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    )+};
}

label_values!(TenantName, DeploymentName, ModelName, BackendName, Kind, Scope);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CostLabels {
    pub(super) tenant: TenantName,
    pub(super) deployment: DeploymentName,
    pub(super) model: ModelName,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeploymentLabels {
    pub(super) tenant: TenantName,
    pub(super) deployment: DeploymentName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) tenant: Option<TenantName>,
    pub(super) deployment: Option<DeploymentName>,
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TenantReason {
    pub(super) tenant: TenantName,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SettledLabels {
    pub(super) tenant: TenantName,
    pub(super) source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TenantLabel {
    pub(super) tenant: TenantName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AdjustedLabels {
    pub(super) tenant: TenantName,
    pub(super) direction: &'static str,
}

/// The label of a backend's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabel {
    /// Its name.
    pub backend: BackendName,
}

/// The label of an identity's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScopeLabel {
    /// What its tokens are asked for.
    pub scope: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HandshakeLabel {
    pub(super) result: HandshakeResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ShedLabel {
    pub(super) reason: ShedReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PanicLabel {
    pub(super) r#where: Scope,
}
