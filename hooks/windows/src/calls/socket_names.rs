//! The addresses that the system reports for sockets: accept, WSAAccept, getsockname, getpeername
//! and GetAcceptExSockaddrs.

use std::ffi::c_void;
use std::net::SocketAddr;

use windows_sys::Win32::Networking::WinSock::{
    INVALID_SOCKET, LPCONDITIONPROC, SOCKADDR, SOCKET, SOCKET_ERROR,
};

use super::bind::bind_deferred;
use super::extension;
use crate::context::rewriter;
use crate::last_error::LastError;
use crate::socket::{Winsock, overwrite_sockaddr, read_sockaddr};
use crate::{memory, original};

/// Rewrites an address that the system has just written for the program. `read_other_end` returns
/// the address of the other end of the connection.
///
/// # Safety
/// `name` and `length` are output arguments of a call that has just succeeded.
unsafe fn rewrite_reported_address(
    name: *mut SOCKADDR,
    length: *const i32,
    read_other_end: impl FnOnce() -> Option<SocketAddr>,
) {
    if name.is_null() {
        return;
    }
    let saved_error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(length) = memory::read(length)
        && let Some(address) = read_sockaddr(name, length)
        && let Some(visible) = rewriter.visible_address(address, read_other_end).rewritten()
    {
        // SAFETY: the caller guarantees that the system has just written `length` bytes to this
        // buffer of the program.
        unsafe { overwrite_sockaddr(name, length, visible) };
    }
    saved_error.restore();
}

pub unsafe extern "system" fn accept(
    socket: SOCKET,
    name: *mut SOCKADDR,
    length: *mut i32,
) -> SOCKET {
    // SAFETY: the arguments come from the program.
    let accepted = unsafe { original::accept(socket, name, length) };
    if accepted != INVALID_SOCKET {
        // SAFETY: the call has just succeeded and written its output arguments.
        unsafe { rewrite_reported_address(name, length, || Winsock(accepted).local_name()) };
    }
    accepted
}

/// Replaces WSAAccept. The hook layer does not replace the program's condition function, which
/// therefore receives the unrewritten address of the peer.
pub unsafe extern "system" fn wsa_accept(
    socket: SOCKET,
    name: *mut SOCKADDR,
    length: *mut i32,
    condition: LPCONDITIONPROC,
    data: usize,
) -> SOCKET {
    // SAFETY: the arguments come from the program.
    let accepted = unsafe { original::WSAAccept(socket, name, length, condition, data) };
    if accepted != INVALID_SOCKET {
        // SAFETY: the call has just succeeded and written its output arguments.
        unsafe { rewrite_reported_address(name, length, || Winsock(accepted).local_name()) };
    }
    accepted
}

pub unsafe extern "system" fn getsockname(
    socket: SOCKET,
    name: *mut SOCKADDR,
    length: *mut i32,
) -> i32 {
    let saved_error = LastError::save();
    // If the bind is deferred, the program has called bind and expects an address from getsockname.
    if !bind_deferred(socket) {
        return SOCKET_ERROR;
    }
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    let result = unsafe { original::getsockname(socket, name, length) };
    if result == 0 {
        // SAFETY: the call has just succeeded and written its output arguments.
        unsafe { rewrite_reported_address(name, length, || Winsock(socket).peer_name()) };
    }
    result
}

pub unsafe extern "system" fn getpeername(
    socket: SOCKET,
    name: *mut SOCKADDR,
    length: *mut i32,
) -> i32 {
    // SAFETY: the arguments come from the program.
    let result = unsafe { original::getpeername(socket, name, length) };
    if result == 0 {
        // SAFETY: the call has just succeeded and written its output arguments.
        unsafe { rewrite_reported_address(name, length, || Winsock(socket).local_name()) };
    }
    result
}

/// Rewrites both addresses in the AcceptEx buffer of the program.
///
/// # Safety
/// The arguments are the output arguments of a GetAcceptExSockaddrs call that has just returned.
unsafe fn rewrite_accepted_addresses(
    local: *mut *mut SOCKADDR,
    local_length: *mut i32,
    remote: *mut *mut SOCKADDR,
    remote_length: *mut i32,
) {
    let Some(rewriter) = rewriter() else { return };
    // SAFETY: the call has written all four values.
    let (local, local_length, remote, remote_length) =
        unsafe { (*local, *local_length, *remote, *remote_length) };
    let (local_address, remote_address) =
        (read_sockaddr(local, local_length), read_sockaddr(remote, remote_length));
    let rewrite = |address: Option<SocketAddr>, other_end| {
        rewriter.visible_address(address?, || other_end).rewritten()
    };
    // SAFETY: the call has just written both addresses to the buffer of the program.
    unsafe {
        if let Some(visible) = rewrite(local_address, remote_address) {
            overwrite_sockaddr(local, local_length, visible);
        }
        if let Some(visible) = rewrite(remote_address, local_address) {
            overwrite_sockaddr(remote, remote_length, visible);
        }
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
    // SAFETY: the arguments come from the program.
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
        rewrite_accepted_addresses(local, local_length, remote, remote_length);
    }
}

/// Replaces the GetAcceptExSockaddrs that programs get from WSAIoctl.
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
    // SAFETY: the arguments come from the program.
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
        rewrite_accepted_addresses(local, local_length, remote, remote_length);
    }
}
