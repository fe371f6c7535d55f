//! What the program is shown of its sockets: accept, getsockname, getpeername, AcceptEx.

use std::ffi::c_void;
use std::net::SocketAddr;

use windows_sys::Win32::Networking::WinSock::{
    INVALID_SOCKET, LPCONDITIONPROC, SOCKADDR, SOCKET, SOCKET_ERROR,
};

use super::bind::bind_deferred;
use super::{extension, rewriter};
use crate::memory;
use crate::socket::{LastError, Winsock, overwrite_sockaddr, read_sockaddr};
use crate::table::original;

/// Shows an address that the system has just written: `other` gives the other end.
fn rewrite_reported(
    name: *mut SOCKADDR,
    length: *const i32,
    other_end: impl FnOnce() -> Option<SocketAddr>,
) {
    if name.is_null() {
        return;
    }
    let error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(end) = memory::read(length).and_then(|length| read_sockaddr(name, length))
        && let Some(shown) = rewriter.shown(end, other_end).rewritten()
    {
        overwrite_sockaddr(name, shown);
    }
    error.restore();
}

pub unsafe extern "system" fn accept(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> SOCKET {
    // SAFETY: the program's own call.
    let accepted = unsafe { original::accept(s, name, length) };
    if accepted != INVALID_SOCKET {
        rewrite_reported(name, length, || Winsock(accepted).local_name());
    }
    accepted
}

/// The condition function of the program is called by the system, with the peer as it is.
pub unsafe extern "system" fn wsa_accept(
    s: SOCKET,
    name: *mut SOCKADDR,
    length: *mut i32,
    condition: LPCONDITIONPROC,
    data: usize,
) -> SOCKET {
    // SAFETY: the program's own call.
    let accepted = unsafe { original::WSAAccept(s, name, length, condition, data) };
    if accepted != INVALID_SOCKET {
        rewrite_reported(name, length, || Winsock(accepted).local_name());
    }
    accepted
}

pub unsafe extern "system" fn getsockname(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32 {
    let error = LastError::save();
    // The program believes that it is bound, and asks where.
    if !bind_deferred(s) {
        return SOCKET_ERROR;
    }
    error.restore();
    // SAFETY: the program's own call.
    let result = unsafe { original::getsockname(s, name, length) };
    if result == 0 {
        rewrite_reported(name, length, || Winsock(s).peer_name());
    }
    result
}

pub unsafe extern "system" fn getpeername(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32 {
    // SAFETY: the program's own call.
    let result = unsafe { original::getpeername(s, name, length) };
    if result == 0 {
        rewrite_reported(name, length, || Winsock(s).local_name());
    }
    result
}

/// Shows both addresses that are inside the program's AcceptEx buffer.
///
/// # Safety
/// The arguments are those of a GetAcceptExSockaddrs that has just returned.
unsafe fn rewrite_accepted(
    local: *mut *mut SOCKADDR,
    local_length: *mut i32,
    remote: *mut *mut SOCKADDR,
    remote_length: *mut i32,
) {
    let Some(rewriter) = rewriter() else { return };
    // SAFETY: the function has written all four.
    let (local, local_length, remote, remote_length) =
        unsafe { (*local, *local_length, *remote, *remote_length) };
    let (local_address, remote_address) =
        (read_sockaddr(local, local_length), read_sockaddr(remote, remote_length));
    let shown = |end: Option<SocketAddr>, other| rewriter.shown(end?, || other).rewritten();
    if let Some(shown) = shown(local_address, remote_address) {
        overwrite_sockaddr(local, shown);
    }
    if let Some(shown) = shown(remote_address, local_address) {
        overwrite_sockaddr(remote, shown);
    }
}

pub unsafe extern "system" fn get_accept_ex_sockaddrs(
    buffer: *const c_void,
    received: u32,
    local_size: u32,
    remote_size: u32,
    local: *mut *mut SOCKADDR,
    local_length: *mut i32,
    remote: *mut *mut SOCKADDR,
    remote_length: *mut i32,
) {
    // SAFETY: the program's own call.
    unsafe {
        original::GetAcceptExSockaddrs(
            buffer,
            received,
            local_size,
            remote_size,
            local,
            local_length,
            remote,
            remote_length,
        );
        rewrite_accepted(local, local_length, remote, remote_length);
    }
}

/// Stands for the GetAcceptExSockaddrs that the program got from WSAIoctl.
pub unsafe extern "system" fn get_accept_ex_sockaddrs_extension(
    buffer: *const c_void,
    received: u32,
    local_size: u32,
    remote_size: u32,
    local: *mut *mut SOCKADDR,
    local_length: *mut i32,
    remote: *mut *mut SOCKADDR,
    remote_length: *mut i32,
) {
    let Some(original) = extension::get_accept_ex_sockaddrs() else { return };
    // SAFETY: the program's own call.
    unsafe {
        original(
            buffer,
            received,
            local_size,
            remote_size,
            local,
            local_length,
            remote,
            remote_length,
        );
        rewrite_accepted(local, local_length, remote, remote_length);
    }
}
