//! The directory: from a presented key to the tenant that pays, on every call.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::file::{TenantsFile, read_all};
use super::{KeySlot, Tenant, TenantState};
use crate::config::document::{self, Section};
use crate::config::{ConfigErrors, Tier};
use crate::names::{TenantName, TierName};
use crate::secret::{KeyHash, is_well_formed};

/// All tenants with their limits, found by the key they present; an immutable snapshot.
///
/// Looking up a hash in a table may take longer or shorter with where it falls, which tells nothing: an attacker cannot
/// steer the SHA-256 of a guess towards a hash that is kept without knowing the key. Comparing the hashes themselves
/// takes constant time.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    members: Vec<Arc<Member>>,
    /// By the hashes of keys, which the members have and the table has not: there may be a hundred thousand tenants.
    by_key: HashTable<(TenantIndex, KeySlot)>,
    hasher: RandomState,
}

/// A tenant with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The tenant.
    pub tenant: Tenant,
    /// The limits of its tier.
    pub tier: Arc<Tier>,
}

/// A tenant's place in the [`Directory`] that it came from, in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantIndex(u32);

impl TenantIndex {
    /// The bare number, below [`Directory::len`].
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "no file lists four billion tenants")]
    const fn of(place: usize) -> Self {
        Self(place as u32)
    }
}

/// What a presented key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// A key of a tenant that may call.
    Active(TenantIndex, &'a Arc<Member>, KeySlot),
    /// A key of a tenant that may not.
    Suspended(&'a Arc<Member>),
    /// No tenant's key.
    Unknown,
}

/// Why tenants and tiers make no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A tier that the configuration does not have.
    #[error("tenant `{tenant}` is of tier `{tier}`, which the configuration does not have")]
    UnknownTier {
        /// Whose tier.
        tenant: TenantName,
        /// The tier.
        tier: TierName,
    },
    /// One key in two places.
    #[error("tenant `{tenant}` has as its {slot} key one that `{other}` has too")]
    SharedKey {
        /// The tenant that comes second.
        tenant: TenantName,
        /// Which of its keys.
        slot: KeySlot,
        /// The tenant that has it already; the same one where its two keys are equal.
        other: TenantName,
    },
}

impl DirectoryError {
    /// The keys in the tenants file that lead to what is wrong.
    fn place(&self) -> [&str; 3] {
        match self {
            Self::UnknownTier { tenant, .. } => ["tenants", tenant.as_str(), "tier"],
            Self::SharedKey { tenant, slot, .. } => ["tenants", tenant.as_str(), slot.as_str()],
        }
    }
}

impl Directory {
    /// Reads the tenants file and gathers its tenants with the limits of their tiers.
    ///
    /// # Errors
    /// When there is no such file; all that is wrong with it.
    pub fn load(file: &TenantsFile, tiers: &BTreeMap<TierName, Tier>) -> Result<Self, ConfigErrors> {
        document::read(file.path(), &file.text()?, |root| {
            let tenants = read_all(root);
            Ok(Self::new(tenants, tiers).unwrap_or_else(|errors| report(root, errors)))
        })
    }

    /// Gathers `tenants` with the limits of their tiers.
    ///
    /// # Errors
    /// All that keeps them from being told apart: a tier that is not there, a key that occurs twice.
    pub fn new(
        mut tenants: Vec<Tenant>,
        tiers: &BTreeMap<TierName, Tier>,
    ) -> Result<Self, Vec<DirectoryError>> {
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        let tiers: BTreeMap<_, _> = tiers.iter().map(|(name, tier)| (name, Arc::new(tier.clone()))).collect();
        let mut directory = Self::default();
        let mut errors = Vec::new();
        for mut tenant in tenants {
            match tiers.get_key_value(&tenant.tier) {
                Some((name, tier)) => {
                    // One text for all tenants of a tier.
                    tenant.tier.clone_from(name);
                    directory.add(tenant, tier, &mut errors);
                }
                None => errors.push(DirectoryError::UnknownTier { tenant: tenant.name, tier: tenant.tier }),
            }
        }
        if errors.is_empty() { Ok(directory) } else { Err(errors) }
    }

    fn add(&mut self, tenant: Tenant, tier: &Arc<Tier>, errors: &mut Vec<DirectoryError>) {
        let index = TenantIndex::of(self.members.len());
        let member = Arc::new(Member { tenant, tier: Arc::clone(tier) });
        self.members.push(Arc::clone(&member));
        for slot in [KeySlot::Primary, KeySlot::Secondary] {
            let Self { members, by_key, hasher } = self;
            let key = |place: &(TenantIndex, KeySlot)| key_of(members, *place);
            let mine = member.tenant.key(slot);
            let entry = by_key.entry(
                hasher.hash_one(mine),
                |place| key(place) == mine,
                |place| hasher.hash_one(key(place)),
            );
            match entry {
                Entry::Vacant(free) => {
                    free.insert((index, slot));
                }
                Entry::Occupied(taken) => errors.push(DirectoryError::SharedKey {
                    tenant: member.tenant.name.clone(),
                    slot,
                    other: members[taken.get().0.get()].tenant.name.clone(),
                }),
            }
        }
    }

    /// Finds whose key a caller presents. What cannot be a key is turned away before it is hashed.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Presented<'_> {
        if !is_well_formed(key) {
            return Presented::Unknown;
        }
        let Some((index, slot)) = self.by_hash(&KeyHash::of(key)) else {
            return Presented::Unknown;
        };
        let member = &self.members[index.get()];
        match member.tenant.state {
            TenantState::Active => Presented::Active(index, member, slot),
            TenantState::Suspended => Presented::Suspended(member),
        }
    }

    /// Whose key has that hash, and which of them it is.
    #[must_use]
    pub fn by_hash(&self, key: &KeyHash) -> Option<(TenantIndex, KeySlot)> {
        let is_it = |place: &(TenantIndex, KeySlot)| key_of(&self.members, *place) == *key;
        self.by_key.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// The tenant of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<(TenantIndex, &Arc<Member>)> {
        let index = self.members.binary_search_by(|member| member.tenant.name.as_str().cmp(name)).ok()?;
        Some((TenantIndex::of(index), &self.members[index]))
    }

    /// The tenant at `index` of this directory.
    #[must_use]
    pub fn get(&self, index: TenantIndex) -> Option<&Arc<Member>> {
        self.members.get(index.get())
    }

    /// All tenants, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TenantIndex, &Arc<Member>)> {
        self.members.iter().enumerate().map(|(index, member)| (TenantIndex::of(index), member))
    }

    /// How many tenants there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no tenant.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

fn key_of(members: &[Arc<Member>], (index, slot): (TenantIndex, KeySlot)) -> KeyHash {
    members[index.get()].tenant.key(slot)
}

fn report(root: &Section<'_>, errors: Vec<DirectoryError>) -> Directory {
    for error in errors {
        root.report_at(&error.clone().place(), error.into());
    }
    Directory::default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::secret::SubscriptionKey;

    fn tiers() -> BTreeMap<TierName, Tier> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway.example.toml");
        Config::load(&path).unwrap().tiers
    }

    fn tenant(name: &str, keys: &[SubscriptionKey; 2]) -> Tenant {
        Tenant {
            name: TenantName::new(name).unwrap(),
            tier: TierName::new("default").unwrap(),
            state: TenantState::Active,
            primary: keys[0].hash(),
            secondary: keys[1].hash(),
            created: None,
            rotated: None,
        }
    }

    fn keys() -> [SubscriptionKey; 2] {
        [SubscriptionKey::generate().unwrap(), SubscriptionKey::generate().unwrap()]
    }

    #[test]
    fn either_key_finds_its_tenant_and_no_other_does() {
        let (acme, other) = (keys(), keys());
        let tenants = vec![tenant("other", &other), tenant("acme", &acme)];
        let directory = Directory::new(tenants, &tiers()).unwrap();
        for (index, name, keys) in [(0, "acme", &acme), (1, "other", &other)] {
            for (slot, key) in [KeySlot::Primary, KeySlot::Secondary].into_iter().zip(keys) {
                let Presented::Active(found, member, by) = directory.find(key.reveal().as_bytes()) else {
                    panic!("a key of {name} was not found");
                };
                assert_eq!((found.get(), by, member.tenant.name.as_str()), (index, slot, name));
                assert_eq!(directory.by_name(name), Some((found, member)));
            }
        }
        let stranger = SubscriptionKey::generate().unwrap();
        assert_eq!(directory.find(stranger.reveal().as_bytes()), Presented::Unknown);
        assert_eq!(directory.find(b""), Presented::Unknown);
        assert_eq!(directory.find(acme[0].hash().to_string().as_bytes()), Presented::Unknown);
        assert_eq!(directory.by_name("nobody"), None);
        assert_eq!((directory.len(), directory.iter().count()), (2, 2));
    }

    #[test]
    fn a_suspended_tenant_is_known_and_may_not_call() {
        let keys = keys();
        let suspended = Tenant { state: TenantState::Suspended, ..tenant("acme", &keys) };
        let directory = Directory::new(vec![suspended], &tiers()).unwrap();
        assert!(matches!(directory.find(keys[1].reveal().as_bytes()), Presented::Suspended(_)));
    }

    #[test]
    fn one_key_belongs_to_one_slot_of_one_tenant() {
        let keys = keys();
        let twice = vec![tenant("acme", &keys), tenant("other", &keys)];
        assert_eq!(Directory::new(twice, &tiers()).unwrap_err().len(), 2);
        let [key, _] = keys;
        let same = vec![tenant("acme", &[key.clone(), key])];
        assert_eq!(
            Directory::new(same, &tiers()).unwrap_err()[0].to_string(),
            "tenant `acme` has as its secondary key one that `acme` has too"
        );
    }

    #[test]
    fn what_keeps_tenants_apart_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = TenantsFile::new(folder.path().join("tenants.toml"));
        let keys = keys();
        file.add(&tenant("acme", &keys)).unwrap();
        let gold = TierName::new("gold").unwrap();
        file.add(&Tenant { tier: gold, ..tenant("other", &self::keys()) }).unwrap();
        file.add(&tenant("third", &keys)).unwrap();
        let errors = Directory::load(&file, &tiers()).unwrap_err();
        let lines: Vec<_> = errors
            .errors()
            .iter()
            .map(|error| (error.position.map(|at| at.line), error.key.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                (Some(8), "tenants.other.tier"),
                (Some(16), "tenants.third.primary"),
                (Some(17), "tenants.third.secondary")
            ]
        );
        assert!(errors.to_string().contains("tenant `other` is of tier `gold`, which the configuration"));
    }
}
