//! The calls that show a program one socket address: names of sockets, peers, sources.

use std::net::SocketAddr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, MAX_LENGTH, Parsed};
use vipool::rewrite::{Outcome, Socket};

use crate::guest::{self, Guest};
use crate::socket::Fd;
use crate::{memory, original};

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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let accepted = unsafe { original::accept(fd, address, length) };
    show_accepted(accepted, address, length, room);
    accepted
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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let accepted = unsafe { original::accept4(fd, address, length, flags) };
    show_accepted(accepted, address, length, room);
    accepted
}

fn show_accepted(
    accepted: c_int,
    address: *mut sockaddr,
    length: *const socklen_t,
    room: Option<Room>,
) {
    if let (Some(room), 0..) = (room, accepted) {
        let fd = Fd(accepted);
        show(room, address, length, || fd.peer(), || fd.local());
    }
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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let result = unsafe { original::getsockname(fd, address, length) };
    if let (Some(room), 0) = (room, result) {
        show(room, address, length, || Fd(fd).local(), || Fd(fd).peer());
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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let result = unsafe { original::getpeername(fd, address, length) };
    if let (Some(room), 0) = (room, result) {
        show(room, address, length, || Fd(fd).peer(), || Fd(fd).local());
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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let received = unsafe { original::recvfrom(fd, data, size, flags, address, length) };
    show_received(fd, received, address, length, room);
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
    data_room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let received =
        unsafe { original::__recvfrom_chk(fd, data, size, data_room, flags, address, length) };
    show_received(fd, received, address, length, room);
    received
}

fn show_received(
    fd: c_int,
    received: ssize_t,
    address: *mut sockaddr,
    length: *const socklen_t,
    room: Option<Room>,
) {
    if let (Some(room), 0..) = (room, received) {
        show(room, address, length, || None, || Fd(fd).local());
    }
}

/// Room that a program has for an address, noted before the kernel overwrites how much it is.
#[derive(Clone, Copy)]
struct Room {
    guest: &'static Guest,
    bytes: usize,
}

/// How much room there is, if what the kernel writes there may have to be shown otherwise.
#[inline]
fn room(address: *const sockaddr, length: *const socklen_t) -> Option<Room> {
    let guest = guest::active()?;
    if address.is_null() {
        return None;
    }
    Some(Room { guest, bytes: usize::try_from(memory::read(length)?).ok()? })
}

/// Shows the address that the kernel has just written as the program shall see it. `whole` gives
/// all of it where the program's room was too small, `other` the other end of the connection.
#[inline]
fn show(
    room: Room,
    address: *mut sockaddr,
    length: *const socklen_t,
    whole: impl FnOnce() -> Option<SocketAddr>,
    other: impl FnOnce() -> Option<SocketAddr>,
) {
    // SAFETY: the kernel has just written there.
    let length = unsafe { length.read_unaligned() };
    let written = room.bytes.min(length as usize).min(MAX_LENGTH);
    // SAFETY: the kernel has just written this many bytes there, and the program can't mean
    // anybody else to use them during the call.
    let shown = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), written) };
    show_bytes(room.guest, shown, length as usize > written, whole, other);
}

/// As [`show`], of bytes; `cut` if they are not the whole address.
#[inline]
pub fn show_bytes(
    guest: &Guest,
    shown: &mut [u8],
    cut: bool,
    whole: impl FnOnce() -> Option<SocketAddr>,
    other: impl FnOnce() -> Option<SocketAddr>,
) {
    let end = if cut {
        whole()
    } else {
        match bytes::parse(shown) {
            Parsed::Inet(end) => Some(end),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    };
    if let Some(end) = end
        && let Outcome::Rewritten(end) = guest.names().shown(end, other)
    {
        bytes::write(&end, shown);
    }
}
