//! The tenants file: names, tiers, states and key hashes, written by `aoai-gateway tenant …`.
//!
//! A change is made on the text, so that comments and order stay, and the file is replaced as a whole: a gateway that
//! reads it meanwhile sees the old one or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use toml::value::Datetime;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::replace::replace_file;
use super::{KeySlot, Tenant, TenantState};
use crate::config::document::{self, Reported, Section};
use crate::config::{ConfigErrors, Problem, nearest, value};
use crate::names::{TenantName, TierName};
use crate::secret::KeyHash;

/// Where the tenants are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantsFile {
    path: PathBuf,
}

/// Why the tenants file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// It is wrong as it is.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
    /// There is a tenant of that name.
    #[error(
        "there is a tenant `{0}` already; replace its keys with `aoai-gateway tenant rotate {0} --slot primary`"
    )]
    Exists(TenantName),
    /// There is no tenant of that name.
    #[error("there is no tenant `{name}`{}", nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean `{n}`?")))]
    Unknown {
        /// The name.
        name: TenantName,
        /// The tenant whose name looks most like it.
        nearest: Option<TenantName>,
    },
    /// It cannot be replaced.
    #[error("{} cannot be written: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl TenantsFile {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks it. Whether the tiers exist is for [`Directory::load`](super::Directory::load) to tell.
    ///
    /// # Errors
    /// When there is no such file; all that is wrong with it.
    pub fn read(&self) -> Result<Vec<Tenant>, ConfigErrors> {
        self.parse(&self.text()?)
    }

    /// Checks the text of a file that is, or would be, at this path.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(&self, text: &str) -> Result<Vec<Tenant>, ConfigErrors> {
        document::read(&self.path, text, |root| Ok(read_all(root)))
    }

    /// Reads the one tenant of that name.
    ///
    /// # Errors
    /// When there is no such tenant or no such file, and when the file is wrong.
    pub fn find(&self, name: &TenantName) -> Result<Tenant, TenantsError> {
        let tenants = self.read()?;
        tenants.iter().find(|tenant| tenant.name == *name).cloned().ok_or_else(|| unknown(name, &tenants))
    }

    /// Adds a tenant.
    ///
    /// # Errors
    /// When there is one of that name, and when the file is wrong or cannot be replaced.
    pub fn add(&self, tenant: &Tenant) -> Result<(), TenantsError> {
        self.edit(|document, tenants| {
            if tenants.iter().any(|other| other.name == tenant.name) {
                return Err(TenantsError::Exists(tenant.name.clone()));
            }
            if let Some(table) = table_of_tenants(document) {
                table.insert(tenant.name.as_str(), Item::Table(written(tenant)));
            }
            Ok(())
        })
    }

    /// Replaces one of a tenant's keys.
    ///
    /// # Errors
    /// When there is no such tenant, and when the file is wrong or cannot be replaced.
    pub fn rotate(
        &self,
        name: &TenantName,
        slot: KeySlot,
        key: KeyHash,
        now: Datetime,
    ) -> Result<(), TenantsError> {
        self.edit_tenant(name, |tenant| {
            replace(tenant, slot.as_str(), key.to_string().into());
            replace(tenant, ROTATED, now.into());
        })
    }

    /// Lets a tenant call, or not.
    ///
    /// # Errors
    /// When there is no such tenant, and when the file is wrong or cannot be replaced.
    pub fn set_state(&self, name: &TenantName, state: TenantState) -> Result<(), TenantsError> {
        self.edit_tenant(name, |tenant| replace(tenant, STATE, state.as_str().into()))
    }

    /// Removes a tenant.
    ///
    /// # Errors
    /// When there is no such tenant, and when the file is wrong or cannot be replaced.
    pub fn remove(&self, name: &TenantName) -> Result<(), TenantsError> {
        self.edit(|document, tenants| {
            table_of_tenants(document)
                .and_then(|table| table.remove(name.as_str()))
                .map(|_removed| ())
                .ok_or_else(|| unknown(name, tenants))
        })
    }

    fn edit_tenant(
        &self,
        name: &TenantName,
        change: impl FnOnce(&mut dyn TableLike),
    ) -> Result<(), TenantsError> {
        self.edit(|document, tenants| {
            let tenant = table_of_tenants(document)
                .and_then(|table| table.get_mut(name.as_str()))
                .and_then(Item::as_table_like_mut)
                .ok_or_else(|| unknown(name, tenants))?;
            change(tenant);
            Ok(())
        })
    }

    /// Changes the text under a lock on the file's folder: the file itself is another one after each change.
    fn edit(
        &self,
        change: impl FnOnce(&mut DocumentMut, &[Tenant]) -> Result<(), TenantsError>,
    ) -> Result<(), TenantsError> {
        // Where the path is a link, what it leads to is replaced, not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_absent| self.path.clone());
        let failed = |error| TenantsError::Write { path: self.path.clone(), error };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        let folder_handle = File::open(folder).map_err(failed)?;
        folder_handle.lock().map_err(failed)?;

        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigErrors::file(&self.path, Problem::Read(error)).into()),
        };
        let tenants = self.parse(&text)?;
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            ConfigErrors::syntax(&self.path, &text, error.message(), error.span())
        })?;
        change(&mut document, &tenants)?;
        let text = document.to_string();
        // What could not be read again must not replace what can.
        self.parse(&text)?;
        replace_file(&path, folder, &text).map_err(failed)?;
        folder_handle.sync_all().map_err(failed)
    }

    pub(super) fn text(&self) -> Result<String, ConfigErrors> {
        fs::read_to_string(&self.path).map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::NotFound => Problem::NoTenantsFile,
                _ => Problem::Read(error),
            };
            ConfigErrors::file(&self.path, problem)
        })
    }
}

/// Reads `[tenants]`; the bad ones are noted and left out.
pub(super) fn read_all(root: &mut Section<'_>) -> Vec<Tenant> {
    root.named("tenants", |name, section| {
        let name = TenantName::new(name).map_err(|error| section.report(error.into()));
        read_tenant(section, name)
    })
}

fn read_tenant(section: &mut Section<'_>, name: Result<TenantName, Reported>) -> Result<Tenant, Reported> {
    let tier = section.required("tier", |tier| Ok(TierName::new(value::text(tier)?)?));
    let state = section.or(STATE, TenantState::default(), value::choice(&STATES));
    let mut key = |slot: KeySlot| section.required(slot.as_str(), |hash| Ok(value::text(hash)?.parse()?));
    let (primary, secondary) = (key(KeySlot::Primary), key(KeySlot::Secondary));
    let created = section.optional(CREATED, value::moment);
    let rotated = section.optional(ROTATED, value::moment);
    Ok(Tenant { name: name?, tier: tier?, state, primary: primary?, secondary: secondary?, created, rotated })
}

fn table_of_tenants(document: &mut DocumentMut) -> Option<&mut dyn TableLike> {
    let table = document.entry("tenants").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    table.as_table_like_mut()
}

fn written(tenant: &Tenant) -> Table {
    let mut table = Table::new();
    table.insert("tier", tenant.tier.as_str().into());
    table.insert(STATE, tenant.state.as_str().into());
    for slot in [KeySlot::Primary, KeySlot::Secondary] {
        table.insert(slot.as_str(), tenant.key(slot).to_string().into());
    }
    for (key, moment) in [(CREATED, tenant.created), (ROTATED, tenant.rotated)] {
        if let Some(moment) = moment {
            table.insert(key, moment.into());
        }
    }
    table
}

/// Sets a key and keeps the comment beside it.
fn replace(table: &mut dyn TableLike, key: &str, mut new: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            table.insert(key, Item::Value(new));
        }
    }
}

fn unknown(name: &TenantName, tenants: &[Tenant]) -> TenantsError {
    let nearest = nearest(name.as_str(), tenants.iter().map(|tenant| tenant.name.as_str()));
    let nearest = tenants.iter().map(|tenant| &tenant.name).find(|other| Some(other.as_str()) == nearest);
    TenantsError::Unknown { name: name.clone(), nearest: nearest.cloned() }
}

const STATES: [(&str, TenantState); 2] = [
    (TenantState::Active.as_str(), TenantState::Active),
    (TenantState::Suspended.as_str(), TenantState::Suspended),
];
const STATE: &str = "state";
const CREATED: &str = "created";
const ROTATED: &str = "rotated";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant {
            name: TenantName::new(name).unwrap(),
            tier: TierName::new("default").unwrap(),
            state: TenantState::Active,
            primary: KeyHash::of(format!("{name} one").as_bytes()),
            secondary: KeyHash::of(format!("{name} two").as_bytes()),
            created: Some("2026-01-31T12:00:00Z".parse().unwrap()),
            rotated: None,
        }
    }

    fn name(text: &str) -> TenantName {
        TenantName::new(text).unwrap()
    }

    fn empty() -> (tempfile::TempDir, TenantsFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = TenantsFile::new(folder.path().join("tenants.toml"));
        (folder, file)
    }

    #[test]
    fn what_is_added_is_read_back() {
        let (_folder, file) = empty();
        let all = [tenant("zeta"), tenant("acme"), tenant("a.b")];
        all.iter().for_each(|tenant| file.add(tenant).unwrap());
        assert_eq!(file.read().unwrap(), all);
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_tenant_goes_through_its_life() {
        let (_folder, file) = empty();
        file.add(&tenant("acme")).unwrap();
        file.add(&tenant("other")).unwrap();

        file.set_state(&name("acme"), TenantState::Suspended).unwrap();
        assert_eq!(file.read().unwrap()[0].state, TenantState::Suspended);
        file.set_state(&name("acme"), TenantState::Active).unwrap();

        let (key, now) = (KeyHash::of(b"new"), "2026-02-01T00:00:00Z".parse().unwrap());
        file.rotate(&name("acme"), KeySlot::Secondary, key, now).unwrap();
        assert_eq!(file.read().unwrap()[0], Tenant { secondary: key, rotated: Some(now), ..tenant("acme") });

        file.remove(&name("acme")).unwrap();
        assert_eq!(file.read().unwrap(), [tenant("other")]);
    }

    #[test]
    fn what_people_wrote_beside_it_stays() {
        let (_folder, file) = empty();
        let hash = KeyHash::of(b"x");
        let text = format!(
            "# ours\n[tenants.acme] # the first\ntier = \"gold\"\n# why\nstate = \"active\" # since May\n\
             primary = \"{hash}\"\nsecondary = \"{hash}\"\n\n# the end\n"
        );
        fs::write(file.path(), &text).unwrap();
        file.set_state(&name("acme"), TenantState::Suspended).unwrap();
        let changed = text.replace("\"active\" # since May", "\"suspended\" # since May");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), changed);
    }

    #[test]
    fn owner_and_mode_of_the_file_stay() {
        let (_folder, file) = empty();
        file.add(&tenant("acme")).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        file.add(&tenant("other")).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn names_are_told_apart_and_the_nearest_is_offered() {
        let (_folder, file) = empty();
        file.add(&tenant("widgets")).unwrap();
        assert!(matches!(file.add(&tenant("widgets")), Err(TenantsError::Exists(_))));
        let error = file.remove(&name("widget")).unwrap_err().to_string();
        assert_eq!(error, "there is no tenant `widget`; did you mean `widgets`?");
        assert_eq!(file.remove(&name("acme")).unwrap_err().to_string(), "there is no tenant `acme`");
        assert_eq!(file.read().unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_file_is_left_as_it_is() {
        let (_folder, file) = empty();
        let text = "[tenants.acme]\ntier = \"default\"\nprimari = \"sha256:00\"\nsecondary = \"sha256:00\"\n";
        fs::write(file.path(), text).unwrap();
        let errors = file.add(&tenant("other")).unwrap_err().to_string();
        assert!(
            errors.contains("tenants.toml:3:1: tenants.acme.primari: unknown key `primari` in [tenants.acme]; did you mean `primary`?"),
            "{errors}"
        );
        assert!(errors.contains("tenants.toml:4:13: tenants.acme.secondary: is no key hash"), "{errors}");
        assert!(errors.contains("tenants.toml:1:10: tenants.acme.primary: is missing"), "{errors}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
    }

    #[test]
    fn additions_at_the_same_time_all_arrive() {
        let (_folder, file) = empty();
        let names: Vec<_> = (0..8).map(|index| format!("tenant-{index}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| file.add(&tenant(name)).unwrap());
            }
        });
        let mut found: Vec<_> = file.read().unwrap().iter().map(|tenant| tenant.name.to_string()).collect();
        found.sort();
        assert_eq!(found, names);
    }

    #[test]
    fn tenants_may_be_written_in_line() {
        let (_folder, file) = empty();
        let hash = KeyHash::of(b"x");
        let text =
            format!("tenants.acme = {{ tier = \"t\", primary = \"{hash}\", secondary = \"{hash}\" }}\n");
        fs::write(file.path(), text).unwrap();
        file.set_state(&name("acme"), TenantState::Suspended).unwrap();
        file.add(&tenant("other")).unwrap();
        assert_eq!(file.read().unwrap().len(), 2);
        file.remove(&name("acme")).unwrap();
        assert_eq!(file.read().unwrap(), [tenant("other")]);
    }

    #[test]
    fn a_file_that_is_not_there_says_how_to_make_it() {
        let (_folder, file) = empty();
        let errors = file.read().unwrap_err().to_string();
        assert!(errors.contains("does not exist; `aoai-gateway tenant add NAME` writes it"), "{errors}");
    }
}
