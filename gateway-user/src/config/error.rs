//! What is wrong with a configuration or a tenants file: where, and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::EndpointError;
use super::key::key_at;
use crate::names::{BackendName, DeploymentName, ModelName, NameError};
use crate::secret::MalformedHash;
use crate::tenant::DirectoryError;
use crate::tls::explain;

/// All that is wrong with one file, in the order of its lines; at least one error.
///
/// Displayed, it is one line for each: `file:line:column: key: problem`.
#[derive(Debug)]
pub struct ConfigErrors {
    path: PathBuf,
    errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct ConfigError {
    /// Where in the file; none where something is missing that has no place yet.
    pub position: Option<Position>,
    /// The key, with the sections it is in; empty where it is the file itself.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A place in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset` in `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Self {
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: String::from_utf8_lossy(in_line).chars().count() + 1,
        }
    }
}

impl ConfigErrors {
    pub(super) fn new(path: &Path, errors: Vec<ConfigError>) -> Self {
        Self { path: path.to_owned(), errors }
    }

    pub(crate) fn file(path: &Path, problem: Problem) -> Self {
        Self::new(path, vec![ConfigError { position: None, key: String::new(), problem }])
    }

    /// A file that is not TOML, found so at the bytes in `span`.
    pub(crate) fn syntax(path: &Path, text: &str, message: &str, span: Option<Range<usize>>) -> Self {
        let key = span.as_ref().map(|span| key_at(text, span.start)).unwrap_or_default();
        let position = span.map(|span| Position::of(text, span.start));
        Self::new(path, vec![ConfigError { position, key, problem: Problem::Syntax(message.to_owned()) }])
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { position, key, problem }) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(Position { line, column }) = position {
                write!(f, "{line}:{column}:")?;
            }
            if !key.is_empty() {
                write!(f, " {key}:")?;
            }
            write!(f, " {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What can be wrong with a key, its value or a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The configuration is not there.
    #[error(
        "does not exist; --config or AOAI_GATEWAY_CONFIG names another, gateway.example.toml is one to start from"
    )]
    NoConfig,
    /// The tenants file is not there.
    #[error("does not exist; `aoai-gateway tenant add NAME` writes it")]
    NoTenantsFile,
    /// Another file that it names cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    File {
        /// The file named.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Nothing reads this key.
    #[error("unknown key `{key}`{}{}", in_section(section), did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// The section that it is in; empty for the file itself.
        section: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The key must be there.
    #[error("is missing")]
    Missing,
    /// The value is of another type.
    #[error("must be {expected}, found {found}")]
    Type {
        /// The type that it must have.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
    },
    /// The value is none of those known.
    #[error("must be one of {}, found {found:?}{}", quoted(allowed), did_you_mean(*nearest))]
    Choice {
        /// The value.
        found: String,
        /// The values known.
        allowed: Vec<&'static str>,
        /// The known one that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The number is too small or too large.
    #[error("must be between {least} and {most}, found {found}")]
    Range {
        /// The number.
        found: String,
        /// The smallest allowed.
        least: u64,
        /// The largest allowed.
        most: u64,
    },
    /// The text is no duration in bounds.
    #[error("must be a duration from \"1ms\" to \"24h\", such as \"500ms\", \"10s\" or \"2m\", found {0:?}")]
    Duration(String),
    /// The number is no amount of money.
    #[error("must be an amount of dollars from 0 to {most}, found {found}")]
    Dollars {
        /// The number.
        found: String,
        /// The largest allowed.
        most: u64,
    },
    /// A quota of nothing.
    #[error("must be more than nothing; suspend a tenant to stop it")]
    NoBudget,
    /// The text is no name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The text is no address to listen on.
    #[error("must be an address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\", found {0:?}")]
    Address(String),
    /// The text is no web origin.
    #[error(
        "must be an origin as browsers write it, such as \"https://app.example.com\", or \"*\", found {0:?}"
    )]
    Origin(String),
    /// The text is no network.
    #[error("must be a network such as \"10.0.0.0/8\", \"fd00::/8\" or a single address, found {0:?}")]
    Network(String),
    /// The text is no backend's address.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// The text is no store's address.
    #[error("must be \"file:DIRECTORY\" or \"redis://HOST[:PORT][/DATABASE]\" (rediss:// for TLS)")]
    StoreUrl,
    /// The text is no network interface.
    #[error("must be \"auto\" or an interface's name of at most 15 characters, found {0:?}")]
    Interface(String),
    /// The text is no header's name.
    #[error("must be the name of a header, such as \"x-policy-id\", found {0:?}")]
    HeaderName(String),
    /// The text is no query parameter's name.
    #[error("must be the name of a query parameter, of letters, digits, `-`, `_` and `.`, found {0:?}")]
    ParameterName(String),
    /// A name that must stay here.
    #[error("`{name}` {why}, and never goes upstream")]
    NeverForwarded {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The text is no key's hash.
    #[error("{0}")]
    KeyHash(#[from] MalformedHash),
    /// An empty text, or one with control characters.
    #[error("must be a text without control characters, and not empty")]
    Text,
    /// An empty list or section.
    #[error("must have at least one entry")]
    Empty,
    /// A name that something else has already.
    #[error("is there twice: {0}")]
    Twice(String),
    /// A name that nothing has.
    #[error("there is no {kind} `{name}`{}", did_you_mean(nearest.as_deref()))]
    NoSuch {
        /// What kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
        /// The name that looks most like it.
        nearest: Option<String>,
    },
    /// `"*"` beside other names.
    #[error("\"*\" means every deployment and stands alone")]
    StarAmongNames,
    /// Two listeners on one address.
    #[error("{0} is the address of [listen] already")]
    SameAddress(SocketAddr),
    /// A backend elsewhere, and no identity to show it.
    #[error("\"none\" is for backends on loopback only, and `{0}` is not")]
    IdentityNeeded(BackendName),
    /// A spend quota over tokens without a price.
    #[error(
        "deployment `{deployment}` has no price, so what it spends could not be counted; add [prices.\"{model}\"]"
    )]
    NoPrice {
        /// A deployment that the tier may call.
        deployment: DeploymentName,
        /// Its model.
        model: ModelName,
    },
    /// Tenants that cannot be told apart, or have no limits.
    #[error("{0}")]
    Tenant(#[from] DirectoryError),
    /// A file without a certificate.
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A file without a private key.
    #[error("{} holds no private key in PEM", .0.display())]
    NoPrivateKey(PathBuf),
    /// A file that is not PEM.
    #[error("{} {}", path.display(), explain::pem(error))]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: rustls_pki_types::pem::Error,
    },
    /// A certificate and a key that do not belong together, or that TLS cannot use.
    #[error("certificate and private key cannot be used together: {}", explain::tls(.0))]
    Certificate(rustls::Error),
}

fn in_section(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!(" in [{section}]") }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The one of a few words that `text` was probably meant to be: the nearest, else the only one that begins as it does.
/// `day` is not near `daily`, and nothing else begins with `da`.
pub(super) fn meant(text: &str, words: &[&'static str]) -> Option<&'static str> {
    let shared =
        |word: &str| word.chars().zip(text.chars()).take_while(|(ours, theirs)| ours == theirs).count();
    let needed = (text.chars().count() / 2).max(2);
    nearest(text, words.iter().copied()).or_else(|| {
        let mut alike = words.iter().copied().filter(|word| shared(word) >= needed);
        alike.next().filter(|_| alike.next().is_none())
    })
}

/// The candidate that `text` was most probably meant to be, if one comes close.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let farthest = (text.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= farthest)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
