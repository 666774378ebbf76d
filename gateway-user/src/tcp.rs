//! The kernel's receive buffer of each TCP connection, towards callers and towards backends.

/// The receive buffer in bytes, which fills while the gateway does not read. Linux doubles the number for its own needs. A
/// buffer without a size set grows to 6 MiB and more (tcp(7)), and a few hundred of those use up the memory that all
/// connections of the machine share.
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
