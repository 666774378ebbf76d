//! What every TCP connection of the gateway's is bounded by, on either side.

/// What the kernel may hold of one connection that the gateway does not read, as where a caller takes nothing of a long
/// answer, in bytes. Linux doubles it for its own needs, and grows what is not set to 6 MiB and more (tcp(7)): a few hundred
/// such connections would use up the memory that all connections of the machine share.
pub(crate) const RECEIVE_BUFFER: u32 = 256 * 1024;
