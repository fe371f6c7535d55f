//! The calls that show a program one socket address: names of sockets, peers, sources.

use std::net::SocketAddr;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use vipool::rewrite::sockaddr::{self as bytes, IPV6_LENGTH, MAX_LENGTH, Parsed};
use vipool::rewrite::{Outcome, Socket};

use crate::facts::PAIRS;
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
    accepting(address, length, |address, length| {
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
    accepting(address, length, |address, length| {
        // SAFETY: the caller's own call, perhaps with room of the hook's own.
        unsafe { original::accept4(fd, address, length, flags) }
    })
}

/// Accepts by this call. Whether what is accepted may be one of a pair is told by its peer, so a
/// program that does not want to know it is given room for it all the same.
#[inline]
fn accepting(
    address: *mut sockaddr,
    length: *mut socklen_t,
    call: impl Fn(*mut sockaddr, *mut socklen_t) -> c_int,
) -> c_int {
    let mut bytes = [0u8; IPV6_LENGTH];
    let mut bytes_length = bytes.len() as socklen_t;
    let (address, length) = if address.is_null() && !PAIRS.may_be() {
        (bytes.as_mut_ptr().cast(), &raw mut bytes_length)
    } else {
        (address, length)
    };
    let room = room(address, length);
    let accepted = call(address, length);
    if let (Some(room), 0..) = (room, accepted) {
        let fd = Fd(accepted);
        if show(room, address, length, false, || fd.peer(), || fd.local()) {
            PAIRS.note();
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
    let room = room(address, length);
    // SAFETY: the caller's own call.
    let result = unsafe { original::getsockname(fd, address, length) };
    if let (Some(room), 0) = (room, result) {
        let alone = !PAIRS.may_be();
        show(room, address, length, alone, || Fd(fd).local(), || Fd(fd).peer());
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
        let alone = !PAIRS.may_be();
        show(room, address, length, alone, || Fd(fd).peer(), || Fd(fd).local());
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
        show(room, address, length, false, || None, || Fd(fd).local());
    }
}

/// Room that a program has for an address, noted before the kernel overwrites how much it is.
#[derive(Clone, Copy)]
struct Room {
    guest: &'static Guest,
    bytes: usize,
}

/// How much room there is, if what the kernel writes there may have to be shown otherwise. Whether
/// the map was replaced is looked at only for what is: a session's addresses stay.
#[inline]
fn room(address: *const sockaddr, length: *const socklen_t) -> Option<Room> {
    let guest = guest::latest()?;
    if address.is_null() {
        return None;
    }
    Some(Room { guest, bytes: usize::try_from(memory::read(length)?).ok()? })
}

/// Shows the address that the kernel has just written as the program shall see it. `whole` gives
/// all of it where the program's room was too small, `other` the other end of the connection, for
/// which nothing is asked if the end is `alone`. Answers whether another address is shown.
#[inline]
fn show(
    room: Room,
    address: *mut sockaddr,
    length: *const socklen_t,
    alone: bool,
    whole: impl FnOnce() -> Option<SocketAddr>,
    other: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    // SAFETY: the kernel has just written there.
    let length = unsafe { length.read_unaligned() };
    let written = room.bytes.min(length as usize).min(MAX_LENGTH);
    // SAFETY: the kernel has just written this many bytes there, and the program can't mean
    // anybody else to use them during the call.
    let shown = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), written) };
    show_bytes(room.guest, shown, length as usize > written, alone, whole, other)
}

/// As [`show`], of bytes; `cut` if they are not the whole address.
#[inline]
pub fn show_bytes(
    guest: &Guest,
    shown: &mut [u8],
    cut: bool,
    alone: bool,
    whole: impl FnOnce() -> Option<SocketAddr>,
    other: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    if !cut {
        let Some(ip) = bytes::ipv4_in(shown) else { return false };
        let octets = *ip;
        if let Some(new) = guest.shows(octets.into(), alone) {
            *ip = new.octets();
            return *ip != octets;
        }
    }
    rewrite(guest, shown, cut, whole, || if alone { None } else { other() })
}

#[cold]
fn rewrite(
    guest: &Guest,
    shown: &mut [u8],
    cut: bool,
    whole: impl FnOnce() -> Option<SocketAddr>,
    other: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    let end = if cut {
        whole()
    } else {
        match bytes::parse(shown) {
            Parsed::Inet(end) => Some(end),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    };
    let Some(end) = end else { return false };
    let guest = guest::active().unwrap_or(guest);
    let Outcome::Rewritten(new) = guest.names().shown(end, other) else { return false };
    bytes::write(&new, shown);
    new != end
}
