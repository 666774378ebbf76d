//! The way to Azure OpenAI: backends, connections kept open to them, and the identity that calls are made under.

pub mod backend;
pub(crate) mod connection;
pub mod http1;
pub mod identity;
pub(crate) mod pool;
