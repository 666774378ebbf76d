//! A caller's request, read once at the edge: which route it takes, what its body asks for, and what has to be
//! changed in it before it goes upstream.

mod elements;
pub mod envelope;
pub mod forward;
pub mod query;
pub mod route;
pub mod shape;
pub mod splice;
mod tools;

pub use envelope::{Envelope, EnvelopeError};
pub use route::Route;
