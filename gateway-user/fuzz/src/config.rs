//! A configuration or a tenants file: what is wrong with it is said, with a line that it has.

use std::path::Path;

use gateway_user::config::{Config, ConfigErrors};
use gateway_user::tenant::TenantsFile;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("/etc/aoai-gateway/gateway.toml");
    if let Err(errors) = Config::parse(text, path) {
        check(text, &errors);
    }
    match TenantsFile::new(path.to_owned()).parse(text) {
        Ok(tenants) => {
            let mut names: Vec<_> = tenants.iter().map(|tenant| &tenant.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), tenants.len(), "a tenant twice");
        }
        Err(errors) => check(text, &errors),
    }
}

fn check(text: &str, errors: &ConfigErrors) {
    assert!(!errors.errors().is_empty(), "refused without a reason");
    let lines = text.split('\n').count();
    for error in errors.errors() {
        let is_there = error.position.is_none_or(|at| (1..=lines).contains(&at.line) && at.column >= 1);
        assert!(is_there, "{error:?} in {lines} lines");
    }
    let shown = errors.to_string();
    assert!(!shown.contains(": \n") && !shown.ends_with(": "), "{shown:?}");
}
