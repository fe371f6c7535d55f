//! Which descriptors the process has, as the kernel says it.

use std::array;

use libc::{c_int, pollfd};

use crate::system_call::system_call;

/// Room for some entries of a directory, aligned as they are.
#[repr(C, align(8))]
struct Entries([u8; 2048]);

/// Where the length and the name of an entry are (`struct linux_dirent64`, getdents64(2)).
const LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

/// How many are asked for at once.
const FEW: usize = 256;

/// Visits all of them; `false` if the kernel did not say which they are.
pub fn each(mut visit: impl FnMut(c_int)) -> bool {
    match few() {
        Some(few) => {
            let open = few.iter().filter(|entry| entry.revents & libc::POLLNVAL == 0);
            open.for_each(|entry| visit(entry.fd));
            true
        }
        None => each_in_directory(visit),
    }
}

/// The first of them, if there are no others: poll(2) says which are none. Nearly all programs
/// start with few, and opening the directory of them all costs ten times as much.
fn few() -> Option<[pollfd; FEW]> {
    let mut entries: [pollfd; FEW] =
        array::from_fn(|fd| pollfd { fd: fd as c_int, events: 0, revents: 0 });
    let mut next = pollfd { fd: FEW as c_int, events: 0, revents: 0 };
    // The kernel writes there what is left of it.
    let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at_once = &raw mut at_once as usize;
    let poll = |entries: *mut pollfd, count: usize| {
        let arguments = [entries as usize, count, at_once, 0, 0, 0];
        // SAFETY: there are as many entries as is said.
        unsafe { system_call(libc::SYS_ppoll, arguments) }
    };
    if poll(&raw mut next, 1) != 1 || next.revents & libc::POLLNVAL == 0 {
        return None;
    }
    // select(2) leaves out what is beyond the process's table, and says of all else that is not
    // open that it is none.
    let mut set = [0u64; FEW / 64 + 1];
    set[FEW / 64] = 1;
    let arguments = [FEW + 1, &raw mut set as usize, 0, 0, at_once, 0];
    // SAFETY: the set has room for this many bits.
    if unsafe { system_call(libc::SYS_pselect6, arguments) } != 0 {
        return None;
    }
    (poll(entries.as_mut_ptr(), FEW) >= 0).then_some(entries)
}

fn each_in_directory(mut visit: impl FnMut(c_int)) -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let path = c"/proc/self/fd".as_ptr() as usize;
    let arguments = [libc::AT_FDCWD as usize, path, flags as usize, 0, 0, 0];
    // SAFETY: the path is a C string.
    let opened = unsafe { system_call(libc::SYS_openat, arguments) };
    let Ok(directory) = usize::try_from(opened) else { return false };
    let mut entries = Entries([0; _]);
    let is_complete = loop {
        let arguments = [directory, &raw mut entries as usize, entries.0.len(), 0, 0, 0];
        // SAFETY: there is as much room as is said.
        let read = unsafe { system_call(libc::SYS_getdents64, arguments) };
        match usize::try_from(read) {
            Ok(0) => break true,
            Ok(read) => {
                let read = entries.0.get(..read).unwrap_or_default();
                numbers(read).filter(|fd| *fd as usize != directory).for_each(&mut visit);
            }
            Err(_) => break false,
        }
    };
    // SAFETY: it was opened here.
    unsafe { system_call(libc::SYS_close, [directory, 0, 0, 0, 0, 0]) };
    is_complete
}

/// The entries whose name is a number.
fn numbers(mut entries: &[u8]) -> impl Iterator<Item = c_int> {
    std::iter::from_fn(move || {
        let length = *entries.get(LENGTH_AT..)?.first_chunk()?;
        let (entry, rest) = entries.split_at_checked(u16::from_ne_bytes(length).into())?;
        entries = rest;
        Some(entry.get(NAME_AT..).and_then(number))
    })
    .flatten()
}

/// The number that a C string is.
fn number(name: &[u8]) -> Option<c_int> {
    let end = name.iter().position(|byte| *byte == 0)?;
    str::from_utf8(name.get(..end)?).ok()?.parse().ok()
}
