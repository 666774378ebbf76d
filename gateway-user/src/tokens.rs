//! How many tokens a prompt will cost, before it is sent, and how many an answer has cost so far.
//!
//! A call is admitted on an estimate and settled on what upstream reports, so that an estimate needs to be close and
//! must not be talked down: what is not known counts as the most that it can be. [`byte_bound`] answers in microseconds
//! and is enough for most calls, [`bound_prompt`] where it does not know; [`estimate_prompt`] tokenises, which takes as long
//! for a few kilobytes as all the rest of a call; [`OutputCounter`] follows a stream in small steps.

mod audio;
mod basis;
mod bound;
mod count;
mod effort;
mod encoded;
mod encoding;
mod estimate;
mod file;
mod image;
mod image_size;
pub(crate) mod items;
mod messages;
mod output;
mod pdf;
mod prompt_kind;
mod raw;
mod schema;
mod tools;

pub use basis::Basis;
pub use bound::{byte_bound, may_hold_file};
pub use encoding::{count_text, preload};
pub(crate) use estimate::{Counted, count_prompt};
pub use estimate::{Estimate, bound_prompt, estimate_prompt};
pub use output::OutputCounter;
pub use prompt_kind::PromptKind;
