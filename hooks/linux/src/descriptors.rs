//! Which descriptors the process has, as the kernel says it.

use std::array;

use libc::{c_int, pollfd};

use crate::system_call::system_call;

/// Room for some entries of a directory, aligned as they are.
#[repr(C, align(8))]
struct DirentBuffer([u8; 2048]);

/// Where the length and the name of an entry are (`struct linux_dirent64`, getdents64(2)).
const RECORD_LENGTH_OFFSET: usize = 16;
const NAME_OFFSET: usize = 19;

/// How many are asked for at once.
const POLLED_FDS: usize = 256;

/// Visits all of them; `false` if the kernel did not say which they are.
pub fn for_each_open_fd(mut visit: impl FnMut(c_int)) -> bool {
    match poll_first_fds() {
        Some(polled) => {
            let open = polled.iter().filter(|entry| entry.revents & libc::POLLNVAL == 0);
            open.for_each(|entry| visit(entry.fd));
            true
        }
        None => for_each_in_proc(visit),
    }
}

/// The first of them, if there are no others: poll(2) says which are none. Nearly all programs
/// start with few, and opening the directory of them all costs ten times as much.
fn poll_first_fds() -> Option<[pollfd; POLLED_FDS]> {
    let mut entries: [pollfd; POLLED_FDS] =
        array::from_fn(|fd| pollfd { fd: fd as c_int, events: 0, revents: 0 });
    let mut next = pollfd { fd: POLLED_FDS as c_int, events: 0, revents: 0 };
    // The kernel writes there what is left of it.
    let mut no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_wait = &raw mut no_wait as usize;
    let poll = |entries: *mut pollfd, count: usize| {
        let arguments = [entries as usize, count, no_wait, 0, 0, 0];
        // SAFETY: there are as many entries as is said.
        unsafe { system_call(libc::SYS_ppoll, arguments) }
    };
    if poll(&raw mut next, 1) != 1 || next.revents & libc::POLLNVAL == 0 {
        return None;
    }
    // select(2) leaves out what is beyond the process's table, and says of all else that is not
    // open that it is none.
    let mut set = [0u64; POLLED_FDS / 64 + 1];
    set[POLLED_FDS / 64] = 1;
    let arguments = [POLLED_FDS + 1, &raw mut set as usize, 0, 0, no_wait, 0];
    // SAFETY: the set has room for this many bits.
    if unsafe { system_call(libc::SYS_pselect6, arguments) } != 0 {
        return None;
    }
    (poll(entries.as_mut_ptr(), POLLED_FDS) >= 0).then_some(entries)
}

fn for_each_in_proc(mut visit: impl FnMut(c_int)) -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let path = c"/proc/self/fd".as_ptr() as usize;
    let arguments = [libc::AT_FDCWD as usize, path, flags as usize, 0, 0, 0];
    // SAFETY: the path is a C string.
    let opened = unsafe { system_call(libc::SYS_openat, arguments) };
    let Ok(directory) = usize::try_from(opened) else { return false };
    let mut dirents = DirentBuffer([0; _]);
    let is_complete = loop {
        let arguments = [directory, &raw mut dirents as usize, dirents.0.len(), 0, 0, 0];
        // SAFETY: there is as much room as is said.
        let length = unsafe { system_call(libc::SYS_getdents64, arguments) };
        match usize::try_from(length) {
            Ok(0) => break true,
            Ok(length) => {
                let length = dirents.0.get(..length).unwrap_or_default();
                fd_entries(length).filter(|fd| *fd as usize != directory).for_each(&mut visit);
            }
            Err(_) => break false,
        }
    };
    // SAFETY: it was opened here.
    unsafe { system_call(libc::SYS_close, [directory, 0, 0, 0, 0, 0]) };
    is_complete
}

/// The entries whose name is a number.
fn fd_entries(mut dirents: &[u8]) -> impl Iterator<Item = c_int> {
    std::iter::from_fn(move || {
        let length = *dirents.get(RECORD_LENGTH_OFFSET..)?.first_chunk()?;
        let (entry, rest) = dirents.split_at_checked(u16::from_ne_bytes(length).into())?;
        dirents = rest;
        Some(entry.get(NAME_OFFSET..).and_then(parse_fd_name))
    })
    .flatten()
}

/// The number that a C string is.
fn parse_fd_name(name: &[u8]) -> Option<c_int> {
    let end = name.iter().position(|byte| *byte == 0)?;
    str::from_utf8(name.get(..end)?).ok()?.parse().ok()
}
