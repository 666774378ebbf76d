//! A tap device: frames that a process writes arrive at it as at a network card.
//!
//! Like a card's driver it asks a native XDP program before it makes a socket buffer, which a veth pair does not: what
//! comes over one of those is in a socket buffer already.
#![expect(unsafe_code, reason = "the request that makes the device has no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl};

/// A tap device, there as long as this value is.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// `struct ifreq` as far as [`TUNSETIFF`] reads it (linux/if.h).
#[derive(Debug)]
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// linux/if_tun.h
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;

impl Tap {
    /// Makes a device of that name in this thread's network namespace. It is down.
    ///
    /// # Errors
    /// When the process may not, or the name is taken or longer than 15 bytes.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut request = Request { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
        if name.len() >= request.name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request.name.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
        // Only writes that do not block are taken without a socket buffer.
        let flags = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
        // SAFETY: the request reads a `struct ifreq`, which this is.
        let make = unsafe { Setter::<TUNSETIFF, Request>::new(request) };
        // SAFETY: the request keeps no pointer.
        unsafe { ioctl(&file, make) }?;
        Ok(Self { file })
    }

    /// Lets a frame arrive. It has been dealt with when this returns, in this thread's time: dropped, or taken through the
    /// network stack.
    ///
    /// # Errors
    /// When the device is down.
    pub fn arrive(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame)
    }
}
