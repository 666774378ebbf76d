//! The way to Azure OpenAI.
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod pool;
