//! The calls that show a program one socket address: names of sockets, peers, sources.

use std::net::SocketAddr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, IPV6_LENGTH, MAX_LENGTH, Parsed};
use vipool::rewrite::{Outcome, Socket};

use crate::facts::PAIRED_SOCKETS;
use crate::hooked_process::{self, HookedProcess};
use crate::socket::Fd;
use crate::{caller_memory, original};

/// accept(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    accept_with(address, length, |address, length| {
        // SAFETY: the caller's own call, perhaps with room of the hook's own.
        unsafe { original::accept(fd, address, length) }
    })
}

/// accept4(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    accept_with(address, length, |address, length| {
        // SAFETY: the caller's own call, perhaps with room of the hook's own.
        unsafe { original::accept4(fd, address, length, flags) }
    })
}

/// Accepts by this call. Whether what is accepted may be one of a pair is told by its peer, so a
/// program that does not want to know it is given room for it all the same.
#[inline]
fn accept_with(
    address: *mut sockaddr,
    length: *mut socklen_t,
    call: impl Fn(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    let mut bytes = [0u8; IPV6_LENGTH];
    let mut bytes_length = bytes.len() as socklen_t;
    let (address, length) = if address.is_null() && !PAIRED_SOCKETS.is_possible() {
        (bytes.as_mut_ptr().cast(), &raw mut bytes_length)
    } else {
        (address, length)
    };
    let capacity = name_capacity(address, length);
    let accepted = call(address, length);
    if let (Some(capacity), 0..) = (capacity, accepted) {
        let fd = Fd(accepted);
        if write_visible_name(capacity, address, length, false, || fd.peer(), || fd.local_address())
        {
            PAIRED_SOCKETS.record();
        }
    }
    accepted
}

/// getsockname(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    let capacity = name_capacity(address, length);
    // SAFETY: the caller's own call.
    let result = unsafe { original::getsockname(fd, address, length) };
    if let (Some(capacity), 0) = (capacity, result) {
        let ignores_peer = !PAIRED_SOCKETS.is_possible();
        write_visible_name(
            capacity,
            address,
            length,
            ignores_peer,
            || Fd(fd).local_address(),
            || Fd(fd).peer(),
        );
    }
    result
}

/// getpeername(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    let capacity = name_capacity(address, length);
    // SAFETY: the caller's own call.
    let result = unsafe { original::getpeername(fd, address, length) };
    if let (Some(capacity), 0) = (capacity, result) {
        let ignores_peer = !PAIRED_SOCKETS.is_possible();
        write_visible_name(
            capacity,
            address,
            length,
            ignores_peer,
            || Fd(fd).peer(),
            || Fd(fd).local_address(),
        );
    }
    result
}

/// recvfrom(2).
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    data: *mut c_void,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    let capacity = name_capacity(address, length);
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvfrom(fd, data, size, flags, address, length) };
    write_visible_source(fd, received, address, length, capacity);
    received
}

/// recvfrom(2) of a program that was compiled with `_FORTIFY_SOURCE`.
///
/// # Safety
/// As of the original.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    data: *mut c_void,
    size: size_t,
    data_capacity: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    let capacity = name_capacity(address, length);
    // SAFETY: the caller's own call.
    let received =
        unsafe { original::__recvfrom_chk(fd, data, size, data_capacity, flags, address, length) };
    write_visible_source(fd, received, address, length, capacity);
    received
}

fn write_visible_source(
    fd: c_int,
    received: ssize_t,
    address: *mut sockaddr,
    length: *const socklen_t,
    capacity: Option<NameCapacity>,
) {
    if let (Some(capacity), 0..) = (capacity, received) {
        write_visible_name(capacity, address, length, false, || None, || Fd(fd).local_address());
    }
}

/// Room that a program has for an address, noted before the kernel overwrites how much it is.
#[derive(Clone, Copy)]
struct NameCapacity {
    process: &'static HookedProcess,
    bytes: usize,
}

/// How much room there is, if what the kernel writes there may have to be shown otherwise. Whether
/// the map was replaced is looked at only for what is: a session's addresses stay.
#[inline]
fn name_capacity(address: *const sockaddr, length: *const socklen_t) -> Option<NameCapacity> {
    let process = hooked_process::cached()?;
    if address.is_null() {
        return None;
    }
    Some(NameCapacity { process, bytes: usize::try_from(caller_memory::read(length)?).ok()? })
}

/// Shows the address that the kernel has just written as the program shall see it. `whole` gives
/// all of it where the program's room was too small, `other` the other end of the connection, for
/// which nothing is asked if the end is `alone`. Answers whether another address is shown.
#[inline]
fn write_visible_name(
    capacity: NameCapacity,
    address: *mut sockaddr,
    length: *const socklen_t,
    ignores_peer: bool,
    read_full_name: impl FnOnce() -> Option<SocketAddr>,
    read_peer: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    // SAFETY: the kernel has just written there.
    let length = unsafe { length.read_unaligned() };
    let written = capacity.bytes.min(length as usize).min(MAX_LENGTH);
    // SAFETY: the kernel has just written this many bytes there, and the program can't mean
    // anybody else to use them during the call.
    let bytes_shown = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), written) };
    write_visible_bytes(
        capacity.process,
        bytes_shown,
        length as usize > written,
        ignores_peer,
        read_full_name,
        read_peer,
    )
}

/// As [`show`], of bytes; `cut` if they are not the whole address.
#[inline]
pub fn write_visible_bytes(
    process: &HookedProcess,
    bytes_shown: &mut [u8],
    is_truncated: bool,
    ignores_peer: bool,
    read_full_name: impl FnOnce() -> Option<SocketAddr>,
    read_peer: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    if !is_truncated {
        let Some(ip) = bytes::ipv4_octets_mut(bytes_shown) else { return false };
        let octets = *ip;
        if let Some(new) = process.fast_visible_ipv4(octets.into(), ignores_peer) {
            *ip = new.octets();
            return *ip != octets;
        }
    }
    write_visible_slow(process, bytes_shown, is_truncated, read_full_name, || {
        if ignores_peer { None } else { read_peer() }
    })
}

#[cold]
fn write_visible_slow(
    process: &HookedProcess,
    bytes_shown: &mut [u8],
    is_truncated: bool,
    read_full_name: impl FnOnce() -> Option<SocketAddr>,
    read_peer: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    let name = if is_truncated {
        read_full_name()
    } else {
        match bytes::parse(bytes_shown) {
            Parsed::Inet(name) => Some(name),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    };
    let Some(name) = name else { return false };
    let process = hooked_process::current().unwrap_or(process);
    let Outcome::Rewritten(new) = process.display_rewriter().visible_address(name, read_peer)
    else {
        return false;
    };
    bytes::write(&new, bytes_shown);
    new != name
}
