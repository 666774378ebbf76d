//! Tenants: who may call, how much, and with which keys.

mod directory;
mod file;
mod replace;

use std::fmt;

use toml::value::Datetime;

use crate::names::{TenantName, TierName};
use crate::secret::KeyHash;

pub use directory::{Directory, DirectoryError, Member, Presented, TenantIndex};
pub use file::{TenantsError, TenantsFile};

/// One tenant, as the tenants file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Who it is.
    pub name: TenantName,
    /// Which limits it has.
    pub tier: TierName,
    /// Whether it may call.
    pub state: TenantState,
    /// The hash of its first key.
    pub primary: KeyHash,
    /// The hash of its second key: valid as the first is, so that either can be replaced while the other is in use.
    pub secondary: KeyHash,
    /// When it was added (RFC 3339).
    pub created: Option<Datetime>,
    /// When either key was last replaced (RFC 3339).
    pub rotated: Option<Datetime>,
}

impl Tenant {
    /// The hash of the key in `slot`.
    #[must_use]
    pub const fn key(&self, slot: KeySlot) -> KeyHash {
        match slot {
            KeySlot::Primary => self.primary,
            KeySlot::Secondary => self.secondary,
        }
    }
}

/// Whether a tenant may call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TenantState {
    /// It may.
    #[default]
    Active,
    /// It may not: its keys are refused until it is resumed.
    Suspended,
}

impl TenantState {
    /// The word that the tenants file uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for TenantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which of a tenant's two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum KeySlot {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}

impl KeySlot {
    /// The word that the tenants file and the command line use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
