//! Enumerates the open descriptors of the process.

use std::array;

use libc::{c_int, pollfd};

use crate::system_call::system_call;

/// A buffer with the alignment of directory entries.
#[repr(C, align(8))]
struct DirentBuffer([u8; 2048]);

/// Offsets of the record length and the name in `struct linux_dirent64` (getdents64(2)).
const RECORD_LENGTH_OFFSET: usize = 16;
const NAME_OFFSET: usize = 19;

/// `poll_first_fds` examines the descriptor numbers below this limit.
const MAX_POLLED_FDS: usize = 256;

/// Calls `visit` with every open descriptor. Returns `false` if the list may be incomplete.
pub fn for_each_open_fd(mut visit: impl FnMut(c_int)) -> bool {
    match poll_first_fds() {
        Some(entries) => {
            let open_entries = entries.iter().filter(|entry| entry.revents & libc::POLLNVAL == 0);
            open_entries.for_each(|entry| visit(entry.fd));
            true
        }
        None => for_each_fd_in_proc(visit),
    }
}

/// Polls the descriptors below [`MAX_POLLED_FDS`]. Returns `None` if a higher descriptor may be
/// open, or if the poll fails.
///
/// This function is ten times faster than reading /proc/self/fd, and nearly all programs start with
/// few descriptors. poll(2) reports `POLLNVAL` for a number that is not an open descriptor.
fn poll_first_fds() -> Option<[pollfd; MAX_POLLED_FDS]> {
    let mut entries: [pollfd; MAX_POLLED_FDS] =
        array::from_fn(|fd| pollfd { fd: fd as c_int, events: 0, revents: 0 });
    let mut boundary_entry = pollfd { fd: MAX_POLLED_FDS as c_int, events: 0, revents: 0 };
    // The variable is mutable, because the kernel writes the remaining time to it.
    let mut no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_wait = &raw mut no_wait as usize;
    let poll = |entries: *mut pollfd, count: usize| {
        let arguments = [entries as usize, count, no_wait, 0, 0, 0];
        // SAFETY: `entries` points to `count` entries in every call of this closure.
        unsafe { system_call(libc::SYS_ppoll, arguments) }
    };
    if poll(&raw mut boundary_entry, 1) != 1 || boundary_entry.revents & libc::POLLNVAL == 0 {
        return None;
    }
    // select(2) ignores numbers beyond the end of the process's descriptor table. If the set
    // contains a number inside the table that is not an open descriptor, select fails with EBADF.
    // The set contains only MAX_POLLED_FDS, which is not an open descriptor. So if select succeeds,
    // the table ends before MAX_POLLED_FDS, and no higher descriptor is open.
    let mut fd_set = [0u64; MAX_POLLED_FDS / 64 + 1];
    fd_set[MAX_POLLED_FDS / 64] = 1;
    let arguments = [MAX_POLLED_FDS + 1, &raw mut fd_set as usize, 0, 0, no_wait, 0];
    // SAFETY: the set contains at least MAX_POLLED_FDS + 1 bits.
    if unsafe { system_call(libc::SYS_pselect6, arguments) } != 0 {
        return None;
    }
    (poll(entries.as_mut_ptr(), MAX_POLLED_FDS) >= 0).then_some(entries)
}

/// Calls `visit` with every descriptor in /proc/self/fd, except the descriptor that reads this
/// directory. Returns `false` if the list may be incomplete.
fn for_each_fd_in_proc(mut visit: impl FnMut(c_int)) -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let path = c"/proc/self/fd".as_ptr() as usize;
    let arguments = [libc::AT_FDCWD as usize, path, flags as usize, 0, 0, 0];
    // SAFETY: the path is a C string.
    let open_result = unsafe { system_call(libc::SYS_openat, arguments) };
    let Ok(directory_fd) = usize::try_from(open_result) else { return false };
    let mut buffer = DirentBuffer([0; _]);
    let is_complete = loop {
        let arguments = [directory_fd, &raw mut buffer as usize, buffer.0.len(), 0, 0, 0];
        // SAFETY: the third argument is the length of the buffer.
        let length = unsafe { system_call(libc::SYS_getdents64, arguments) };
        match usize::try_from(length) {
            Ok(0) => break true,
            Ok(length) => {
                let dirents = buffer.0.get(..length).unwrap_or_default();
                fds_in_dirents(dirents)
                    .filter(|fd| *fd as usize != directory_fd)
                    .for_each(&mut visit);
            }
            Err(_) => break false,
        }
    };
    // SAFETY: this function opened the descriptor and closes it once.
    unsafe { system_call(libc::SYS_close, [directory_fd, 0, 0, 0, 0, 0]) };
    is_complete
}

/// Iterates over the descriptor numbers in directory entries. Skips entries whose name is not a
/// number.
fn fds_in_dirents(mut dirents: &[u8]) -> impl Iterator<Item = c_int> {
    std::iter::from_fn(move || {
        let length = *dirents.get(RECORD_LENGTH_OFFSET..)?.first_chunk()?;
        let (entry, rest) = dirents.split_at_checked(u16::from_ne_bytes(length).into())?;
        dirents = rest;
        Some(entry.get(NAME_OFFSET..).and_then(parse_fd_name))
    })
    .flatten()
}

/// Parses a NUL-terminated decimal number.
fn parse_fd_name(name: &[u8]) -> Option<c_int> {
    let end = name.iter().position(|byte| *byte == 0)?;
    str::from_utf8(name.get(..end)?).ok()?.parse().ok()
}
