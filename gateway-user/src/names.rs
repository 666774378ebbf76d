//! The names that configuration gives to things. Each kind has a type of its own, so that none stands for another,
//! and each is checked once, where it is read: the characters allowed are safe in a path, a header, a log and a label.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing there.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error("is longer than {MAX_NAME_BYTES} characters")]
    Long,
    /// A character other than a letter, a digit, `.`, `_` or `-`, or a first one that is neither letter nor digit.
    #[error(
        "may hold only letters, digits, '.', '_' and '-', and starts with a letter or digit; found {0:?}"
    )]
    Character(char),
}

/// The longest name.
pub const MAX_NAME_BYTES: usize = 64;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the text is empty, too long or holds a character that no name may hold.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text).map(|text| Self(Arc::from(text)))
            }

            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+};
}

names! {
    /// Who pays: one party with keys, a tier and budgets of its own.
    TenantName;
    /// A set of limits that tenants share the shape of, each with its own counters.
    TierName;
    /// An Azure OpenAI deployment, as callers name it.
    DeploymentName;
    /// The model behind a deployment; it decides encoding and price.
    ModelName;
    /// An Azure OpenAI resource that calls can be forwarded to.
    BackendName;
}

fn checked(text: &str) -> Result<&str, NameError> {
    let mut characters = text.chars();
    match characters.next() {
        None => return Err(NameError::Empty),
        Some(first) if !first.is_ascii_alphanumeric() => return Err(NameError::Character(first)),
        Some(_) => {}
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::Long);
    }
    match characters.find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(wrong) => Err(NameError::Character(wrong)),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_for_all() {
        assert!(TenantName::new("widgets-co").is_ok());
        assert!(ModelName::new("gpt-4.1_mini").is_ok());
        assert_eq!(TenantName::new(""), Err(NameError::Empty));
        assert_eq!(TenantName::new("-a"), Err(NameError::Character('-')));
        assert_eq!(TenantName::new("a b"), Err(NameError::Character(' ')));
        assert_eq!(TenantName::new("a\u{e9}"), Err(NameError::Character('\u{e9}')));
        assert_eq!(TenantName::new(&"a".repeat(65)), Err(NameError::Long));
    }
}
