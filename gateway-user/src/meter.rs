//! Metering: what a response says it used, read from the bytes as they pass.
//!
//! Nothing here can fail, block or change a byte, with the one exception of [`hide::UsageHider`], which leaves out the
//! usage chunk that the gateway asked for and the caller did not. Where a response cannot be read, what was held for
//! the call stands.

pub mod answer;
pub mod cut;
mod framing;
pub mod hide;
pub mod inflate;
pub mod json;
pub mod stream;
pub mod usage;
mod wire;

pub use usage::Usage;
