//! bind, listen and closesocket, and the binds that the hook layer makes itself.

use std::net::{IpAddr, SocketAddr};

use vipool::rewrite::{Bind, LiveSystem, Outcome, Refusal, Rewriter, Socket};
use windows_sys::Win32::Networking::WinSock::{
    SOCKADDR, SOCKET, SOCKET_ERROR, WSAEADDRNOTAVAIL, WSAEINVAL,
};

use crate::context::rewriter;
use crate::last_error::{LastError, is_address_unavailable, set_last_error};
use crate::socket::{SockaddrBuf, Winsock, read_sockaddr};
use crate::{deferred, original};

pub unsafe extern "system" fn bind(s: SOCKET, name: *const SOCKADDR, length: i32) -> i32 {
    let error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(address) = read_sockaddr(name, length)
    {
        if deferred::contains(s) {
            // The program has already bound this socket, although its bind is deferred.
            set_last_error(WSAEINVAL);
            return SOCKET_ERROR;
        }
        match rewriter.bind(&Winsock(s), address) {
            Outcome::Passed(_) => {}
            Outcome::Refused(Refusal::OtherSessionAddress) => {
                set_last_error(WSAEADDRNOTAVAIL);
                return SOCKET_ERROR;
            }
            Outcome::Rewritten(bind) => {
                error.restore();
                if bind.defer && is_unbound(s) && deferred::insert(s) {
                    error.restore();
                    return 0;
                }
                if bind_rewritten(s, &bind) == 0 {
                    return 0;
                }
                if !is_address_unavailable() || !rewriter.retries_original(bind.address.ip()) {
                    return SOCKET_ERROR;
                }
            }
        }
    }
    error.restore();
    // SAFETY: the arguments come from the program.
    unsafe { original::bind(s, name, length) }
}

/// Returns whether the socket is of IPv4 or IPv6 and unbound.
fn is_unbound(s: SOCKET) -> bool {
    Winsock(s).local_address().is_some_and(|local| local.port() == 0 && local.ip().is_unspecified())
}

/// Makes a rewritten bind. Returns the result of the system call.
fn bind_rewritten(s: SOCKET, bind: &Bind) -> i32 {
    let name = SockaddrBuf::new(bind.address);
    if bind.clear_v6only {
        Winsock(s).set_v6only(false);
    }
    // SAFETY: the pointer and the length describe `name`.
    let result = unsafe { original::bind(s, name.as_ptr(), name.length()) };
    if result != 0 && bind.clear_v6only {
        let error = LastError::save();
        Winsock(s).set_v6only(true);
        error.restore();
    }
    result
}

/// Binds a socket to an address of the session and any port, before a call that needs a bound
/// socket.
///
/// Returns false and sets the last error if the call must fail. This is the case if no interface
/// has the address and the policy does not let such a call pass (row 6). Other errors are ignored,
/// because another thread may have bound the socket before.
pub fn bind_before_call(
    rewriter: &Rewriter<'_, LiveSystem<'_>>,
    socket: Winsock,
    source: IpAddr,
) -> bool {
    socket.bind((source, 0).into())
        || !is_address_unavailable()
        || rewriter.retries_original(source)
}

/// Makes a deferred bind before a call that needs a bound socket and has no destination. Returns
/// false and sets the last error on failure. Does nothing if the bind is not deferred.
pub fn bind_deferred(s: SOCKET) -> bool {
    if !deferred::remove(s) {
        return true;
    }
    let Some(rewriter) = rewriter() else { return bind_to_wildcard(s) };
    match rewriter.listen(&Winsock(s)) {
        Outcome::Rewritten(bind) if bind_rewritten(s, &bind) == 0 => true,
        Outcome::Rewritten(bind) if !rewriter.retries_original(bind.address.ip()) => false,
        _ => bind_to_wildcard(s),
    }
}

/// Binds an unbound socket to the wildcard address, as the program requested. Returns
/// false and sets the last error on failure.
pub fn bind_to_wildcard(s: SOCKET) -> bool {
    match Winsock(s).local_address() {
        Some(local) if local.port() == 0 => Winsock(s).bind(SocketAddr::new(local.ip(), 0)),
        _ => true,
    }
}

pub unsafe extern "system" fn listen(s: SOCKET, backlog: i32) -> i32 {
    let error = LastError::save();
    // If the program never bound the socket, the system reports WSAEINVAL.
    if deferred::contains(s) && !bind_deferred(s) {
        return SOCKET_ERROR;
    }
    error.restore();
    // SAFETY: the arguments come from the program.
    unsafe { original::listen(s, backlog) }
}

pub unsafe extern "system" fn closesocket(s: SOCKET) -> i32 {
    deferred::remove(s);
    // SAFETY: the arguments come from the program.
    unsafe { original::closesocket(s) }
}
