//! What the figures of an estimate rest on.

use crate::units::Tokens;

/// What an estimate rests on, best first; a sum rests on the worst of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Basis {
    /// The published rules, applied to everything that the prompt holds.
    Counted,
    /// The most that a part can cost: an image or a sound of unknown size, or a body that cannot be read.
    Bound,
    /// An allowance: the body holds a part of which nobody can tell what it costs (a file, a hosted tool).
    Allowance,
    /// An allowance, too, for what upstream finds or fetches and the body only names: a file by its address, what a search
    /// found.
    Stored,
    /// An allowance, too, for what upstream keeps for its whole account under an id: an uploaded file, an earlier item.
    Kept,
}

/// What a reference to something outside the body is taken to cost. Nobody publishes a figure, and no figure would be a
/// bound: it keeps such calls from being free while they run; settlement corrects it.
pub(super) const REFERENCE_TOKENS: Tokens = Tokens::new(4096);
