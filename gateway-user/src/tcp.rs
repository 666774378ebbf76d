//! What every TCP connection of the gateway's is bounded by, on either side.

/// What the kernel may hold of one connection that the gateway does not read, as where a caller takes nothing of a long
/// answer, in bytes. Linux doubles it for its own needs, and grows what is not set to 6 MiB and more (tcp(7)): a few hundred
/// such connections would use up the memory that all connections of the machine share.
pub(crate) const RECEIVE_BUFFER: u32 = 256 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use super::RECEIVE_BUFFER;

    /// Whether a socket's buffer is as large as it may be, and no larger (tcp(7), socket(7)).
    pub(crate) fn is_bounded<'a>(socket: impl Into<socket2::SockRef<'a>>) -> bool {
        let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let granted = usize::min(RECEIVE_BUFFER as usize, most.trim().parse().unwrap());
        socket.into().recv_buffer_size().unwrap() == 2 * granted
    }
}
