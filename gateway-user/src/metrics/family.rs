//! Families whose series are dropped with their tenant, and whose labels only calls bring up.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

use crate::names::TenantName;

/// Labels that say whose series it is.
pub(super) trait OfTenant {
    /// Nothing where the series is nobody's, and never dropped.
    fn tenant(&self) -> Option<&TenantName>;
}

/// A family that knows which of its series are whose: the library's own has no way to ask.
#[derive(Debug)]
pub(super) struct TenantFamily<L, M> {
    family: Family<L, M>,
    labels: Mutex<HashMap<TenantName, Vec<L>>>,
}

impl<L, M> TenantFamily<L, M>
where
    L: OfTenant + EncodeLabelSet + Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    M: Metric + Clone + Default,
    Family<L, M>: Metric,
{
    pub(super) fn register(to: &mut Registry, name: &'static str, help: &'static str) -> Self {
        Self { family: super::registered(to, name, help), labels: Mutex::default() }
    }

    /// The series of these labels, to count on directly.
    pub(super) fn owned(&self, labels: &L) -> M {
        self.get(labels).clone()
    }

    /// The series of these labels, made where there is none.
    pub(super) fn get(&self, labels: &L) -> impl Deref<Target = M> + use<'_, L, M> {
        if let Some(series) = self.family.get(labels) {
            return series;
        }
        if let Some(tenant) = labels.tenant() {
            let mut all = self.labels.lock();
            let of_tenant = all.entry(tenant.clone()).or_default();
            if !of_tenant.contains(labels) {
                of_tenant.push(labels.clone());
            }
        }
        self.family.get_or_create(labels)
    }

    /// Drops a tenant's series.
    pub(super) fn forget(&self, tenant: &TenantName) {
        for labels in self.labels.lock().remove(tenant).unwrap_or_default() {
            self.family.remove(&labels);
        }
    }
}
