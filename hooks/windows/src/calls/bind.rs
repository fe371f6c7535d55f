//! bind, listen and closesocket, and the binds that the hook layer performs itself.

use std::net::{IpAddr, SocketAddr};

use vipool::rewrite::{Bind, LiveSystem, Outcome, Rewriter, Socket};
use windows_sys::Win32::Networking::WinSock::{SOCKADDR, SOCKET, SOCKET_ERROR, WSAEINVAL};

use crate::context::rewriter;
use crate::last_error::{LastError, error_of_refusal, is_address_unavailable, set_last_error};
use crate::socket::{SockaddrBuf, Winsock, read_sockaddr};
use crate::{deferred, original};

pub unsafe extern "system" fn bind(socket: SOCKET, name: *const SOCKADDR, length: i32) -> i32 {
    let saved_error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(address) = read_sockaddr(name, length)
    {
        if deferred::contains(socket) {
            // The program has already bound this socket. The hook layer has deferred that bind.
            set_last_error(WSAEINVAL);
            return SOCKET_ERROR;
        }
        match rewriter.bind(&Winsock(socket), address) {
            Outcome::Passed(_) => {}
            Outcome::Refused(refusal) => {
                set_last_error(error_of_refusal(refusal));
                return SOCKET_ERROR;
            }
            Outcome::Rewritten(bind) => {
                saved_error.restore();
                if bind.defer && is_unbound(socket) && deferred::insert(socket) {
                    saved_error.restore();
                    return 0;
                }
                if bind_rewritten(socket, &bind) == 0 {
                    return 0;
                }
                if !is_address_unavailable() || !rewriter.retries_original(bind.address.ip()) {
                    return SOCKET_ERROR;
                }
            }
        }
    }
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    unsafe { original::bind(socket, name, length) }
}

/// Returns whether the socket is an unbound IPv4 or IPv6 socket.
fn is_unbound(socket: SOCKET) -> bool {
    Winsock(socket)
        .local_address()
        .is_some_and(|local| local.port() == 0 && local.ip().is_unspecified())
}

/// Binds the socket to the rewritten address. Returns the result of the system call.
fn bind_rewritten(socket: SOCKET, bind: &Bind) -> i32 {
    let name = SockaddrBuf::new(bind.address);
    if bind.clear_v6only {
        Winsock(socket).set_v6only(false);
    }
    // SAFETY: the pointer and the length describe `name`.
    let result = unsafe { original::bind(socket, name.as_ptr(), name.length()) };
    if result != 0 && bind.clear_v6only {
        let saved_error = LastError::save();
        Winsock(socket).set_v6only(true);
        saved_error.restore();
    }
    result
}

/// Binds a socket to an address of the session and any port, before a call with a destination.
///
/// Returns false and sets the last error if the call must fail. The call must fail if the address
/// is on no interface and the policy does not allow the original call (row 6). The function ignores
/// other errors, because another thread may already have bound the socket.
pub fn bind_to_source(
    rewriter: &Rewriter<'_, LiveSystem<'_>>,
    socket: Winsock,
    source: IpAddr,
) -> bool {
    socket.bind((source, 0).into())
        || !is_address_unavailable()
        || rewriter.retries_original(source)
}

/// Performs the deferred bind of a socket, if there is one.
///
/// Hooks of calls that need a bound socket and have no destination address, such as listen, use
/// this function. Returns false and sets the last error on failure.
pub fn bind_deferred(socket: SOCKET) -> bool {
    if !deferred::remove(socket) {
        return true;
    }
    let Some(rewriter) = rewriter() else { return bind_to_wildcard(socket) };
    match rewriter.listen(&Winsock(socket)) {
        Outcome::Rewritten(bind) if bind_rewritten(socket, &bind) == 0 => true,
        Outcome::Rewritten(bind) if !rewriter.retries_original(bind.address.ip()) => false,
        _ => bind_to_wildcard(socket),
    }
}

/// Binds the socket to the wildcard address, as the program requested, unless the socket is already
/// bound. Returns false and sets the last error on failure.
pub fn bind_to_wildcard(socket: SOCKET) -> bool {
    match Winsock(socket).local_address() {
        Some(local) if local.port() == 0 => Winsock(socket).bind(SocketAddr::new(local.ip(), 0)),
        _ => true,
    }
}

pub unsafe extern "system" fn listen(socket: SOCKET, backlog: i32) -> i32 {
    let saved_error = LastError::save();
    // If the program never bound the socket, the system reports WSAEINVAL.
    if deferred::contains(socket) && !bind_deferred(socket) {
        return SOCKET_ERROR;
    }
    saved_error.restore();
    // SAFETY: the arguments come from the program.
    unsafe { original::listen(socket, backlog) }
}

pub unsafe extern "system" fn closesocket(socket: SOCKET) -> i32 {
    deferred::remove(socket);
    // SAFETY: the arguments come from the program.
    unsafe { original::closesocket(socket) }
}
