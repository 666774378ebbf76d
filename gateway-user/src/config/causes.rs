//! What follows from what: of problems that one mistake makes, the mistake comes first.
//!
//! A misspelt section makes every reference into it wrong. Such references are left out, for they would be gone with the
//! mistake. What may have a cause of its own is kept, and comes after.

use super::error::{ConfigError, Position, Problem};
use super::key::joined;

/// How a problem relates to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It stands for itself.
    Cause,
    /// It follows, as it seems, from the problem at this place.
    Follows(Option<Position>),
    /// It is gone once another problem is.
    Explained,
}

/// Puts problems into the order of their places, each behind the one that it follows from, and leaves out those that
/// another explains.
pub(super) fn first(errors: Vec<ConfigError>) -> Vec<ConfigError> {
    let relations: Vec<_> = errors.iter().map(|error| relation(error, &errors)).collect();
    let mut kept: Vec<_> =
        errors.into_iter().zip(relations).filter(|(_, relation)| *relation != Relation::Explained).collect();
    kept.sort_by_key(|(error, relation)| match relation {
        Relation::Follows(cause) => (error.position.max(*cause), true),
        Relation::Cause | Relation::Explained => (error.position, false),
    });
    kept.into_iter().map(|(error, _)| error).collect()
}

fn relation(error: &ConfigError, all: &[ConfigError]) -> Relation {
    let first = |is_cause: &dyn Fn(&ConfigError) -> bool| all.iter().find(|other| is_cause(other));
    if let Problem::NoSuch { kind, name, .. } = &error.problem {
        let section = format!("{kind}s");
        let named = joined(&section, name);
        if first(&|other| is_whole_section(other, &section) || is_within(other, &named)).is_some() {
            return Relation::Explained;
        }
        // A backend is called by a key in its section, and that may be what is wrong.
        let unnamed = |other: &ConfigError| other.key.starts_with(&section) && other.key.ends_with(".name");
        return first(&unnamed).map_or(Relation::Cause, |cause| Relation::Follows(cause.position));
    }
    if let Problem::NoPrice { model, .. } = &error.problem {
        let price = joined("prices", model.as_str());
        let broken = |other: &ConfigError| is_whole_section(other, "prices") || is_within(other, &price);
        return if first(&broken).is_some() { Relation::Explained } else { Relation::Cause };
    }
    // What is empty because all of it is wrong.
    if matches!(error.problem, Problem::Empty) && first(&|other| is_inside(other, &error.key)).is_some() {
        return Relation::Explained;
    }
    if matches!(error.problem, Problem::Missing | Problem::Empty) {
        let misspelt = |other: &ConfigError| meant_key(other).is_some_and(|key| key == error.key);
        return first(&misspelt).map_or(Relation::Cause, |cause| Relation::Follows(cause.position));
    }
    Relation::Cause
}

/// Whether a section cannot be read as a whole: it is absent, misspelt or something else than a section.
fn is_whole_section(error: &ConfigError, section: &str) -> bool {
    let missing = matches!(error.problem, Problem::Empty | Problem::Missing | Problem::Type { .. });
    (missing && error.key == section) || meant_key(error).is_some_and(|key| key == section)
}

/// Whether a problem lies in the section of this name or is the section's own.
fn is_within(error: &ConfigError, section: &str) -> bool {
    let rest = error.key.strip_prefix(section);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) && !is_reference(error)
}

/// Whether a problem lies in an entry of the section or list of this name.
fn is_inside(error: &ConfigError, section: &str) -> bool {
    error.key.strip_prefix(section).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Whether it is a reference to something that is wrong, and not what is referred to.
const fn is_reference(error: &ConfigError) -> bool {
    matches!(error.problem, Problem::NoSuch { .. } | Problem::NoPrice { .. })
}

/// The key that an unknown one was probably meant to be, with its section.
fn meant_key(error: &ConfigError) -> Option<String> {
    let Problem::UnknownKey { section, nearest: Some(nearest), .. } = &error.problem else { return None };
    Some(joined(section, nearest))
}

#[cfg(test)]
mod tests;
