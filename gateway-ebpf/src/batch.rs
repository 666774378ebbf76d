//! Reading a whole hash map in a few system calls, for the figures that user space shows.
#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

extern crate std;

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::vec::Vec;

use aya::Pod;
use aya::maps::{MapData, MapError};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Entries asked for in one system call; more than any bucket holds.
const BATCH: u32 = 4096;

/// Reads at most `limit` entries of a hash map, `BATCH` (4096) by system call (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
///
/// Entries that come and go meanwhile may or may not be among them.
///
/// # Errors
/// What the kernel answered, or that the map's keys or values have another size.
pub fn entries<K: Pod, V: Pod>(map: &MapData, limit: usize) -> Result<Vec<(K, V)>, MapError> {
    let info = map.info()?;
    if info.key_size() as usize != size_of::<K>() {
        return Err(MapError::InvalidKeySize { size: size_of::<K>(), expected: info.key_size() as usize });
    }
    if info.value_size() as usize != size_of::<V>() {
        return Err(MapError::InvalidValueSize {
            size: size_of::<V>(),
            expected: info.value_size() as usize,
        });
    }
    let mut keys = filled::<K>();
    let mut values = filled::<V>();
    let mut found = Vec::new();
    let mut position = None;
    while found.len() < limit {
        let (count, next) = batch(map.fd().as_fd(), position, &mut keys, &mut values)?;
        found.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        let Some(next) = next else {
            break;
        };
        position = Some(next);
    }
    found.truncate(limit);
    Ok(found)
}

/// One batch: how many entries came, and the bucket to go on from unless the map has ended.
fn batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut from: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let mut next = 0_u32;
    // SAFETY: the kernel's union of plain integers, for which zero is valid.
    let mut attr: bpf_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attr.batch.in_batch = from.as_mut().map_or(0, |bucket| &raw mut *bucket as u64);
    attr.batch.out_batch = &raw mut next as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = BATCH;
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    // SAFETY: keys and values have room for `BATCH` entries of the map's sizes, which `entries` has checked.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<bpf_attr>())
    };
    // SAFETY: the kernel writes this member, whatever it answers.
    let count = unsafe { attr.batch.count }.min(BATCH) as usize;
    if done == 0 {
        return Ok((count, Some(next)));
    }
    let error = io::Error::last_os_error();
    // The end of the map, with its last entries.
    if error.raw_os_error() == Some(libc::ENOENT) { Ok((count, None)) } else { Err(error) }
}

fn filled<T: Pod>() -> Vec<T> {
    // SAFETY: any pattern is a valid `Pod`.
    let zero: T = unsafe { MaybeUninit::zeroed().assume_init() };
    std::vec![zero; BATCH as usize]
}
