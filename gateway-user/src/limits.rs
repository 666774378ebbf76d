//! Budgets: what a tenant may still do, what its open calls hold, and what it has used.
//!
//! Nothing here does IO or reads a clock: the time is an argument ([`Now`]), and the limits are too, so that a
//! reloaded configuration or a share leased from a fleet changes what is allowed without touching what was counted.
//! An [`Account`] is one tenant's counters; an [`Admission`] is what one call holds of it and gives back on drop.

pub mod account;
pub mod admission;
pub mod clock;
mod correction;
pub mod lease;
pub mod period;
pub mod terms;
pub mod window;

pub use account::{Account, Book, Checkpoint, Counters, LeasedTokens, OpenUse, Output, Used};
pub use admission::Admission;
pub use clock::{Clock, Now};
pub use correction::{Correction, Learned};
pub use lease::{Cover, Footing, LeaseReply, LeaseRequest, Occasion, Standing, Ticket};
pub use period::{Period, Quota};
pub use terms::{Ask, Ceiling, Grant, Limits, Refused};
