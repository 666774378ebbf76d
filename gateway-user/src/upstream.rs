//! The way to Azure OpenAI: backends, connections kept open to them, and the identity that calls are made under.

pub mod access;
pub mod backend;
mod breaker;
pub mod choice;
pub(crate) mod connection;
mod dial;
pub mod http1;
pub mod identity;
pub(crate) mod pool;
