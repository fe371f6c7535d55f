//! bind, listen and closesocket.

use std::net::SocketAddr;

use vipool::rewrite::{Bind, Outcome, Refusal};
use windows_sys::Win32::Networking::WinSock::{
    SOCKADDR, SOCKET, SOCKET_ERROR, WSAEADDRNOTAVAIL, WSAEINVAL, WSAGetLastError,
};

use super::rewriter;
use crate::deferred;
use crate::socket::{LastError, SockaddrBuf, Winsock, read_sockaddr, set_last_error};
use crate::table::original;

pub unsafe extern "system" fn bind(s: SOCKET, name: *const SOCKADDR, length: i32) -> i32 {
    let error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(address) = read_sockaddr(name, length)
    {
        if deferred::contains(s) {
            // It is bound, as far as the program knows.
            set_last_error(WSAEINVAL);
            return SOCKET_ERROR;
        }
        match rewriter.bind(&Winsock(s), address) {
            Outcome::Passed(_) => {}
            Outcome::Refused(Refusal::AddressOfAnother) => {
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
                // SAFETY: reads a word of this thread.
                let is_missing = unsafe { WSAGetLastError() } == WSAEADDRNOTAVAIL;
                if !is_missing || !rewriter.retries_untouched(bind.address.ip()) {
                    return SOCKET_ERROR;
                }
            }
        }
    }
    error.restore();
    // SAFETY: the program's own call.
    unsafe { original::bind(s, name, length) }
}

/// Whether the socket has no address, and is one that could have.
fn is_unbound(s: SOCKET) -> bool {
    use vipool::rewrite::Socket;

    Winsock(s).local().is_some_and(|local| local.port() == 0 && local.ip().is_unspecified())
}

/// Binds as the decision says; the result of the system.
fn bind_rewritten(s: SOCKET, bind: &Bind) -> i32 {
    let name = SockaddrBuf::new(bind.address);
    if bind.clear_v6only {
        Winsock(s).set_v6only(false);
    }
    // SAFETY: an address of this length.
    let result = unsafe { original::bind(s, name.as_ptr(), name.length()) };
    if result != 0 && bind.clear_v6only {
        let error = LastError::save();
        Winsock(s).set_v6only(true);
        error.restore();
    }
    result
}

/// Binds now what was put off, for a caller that needs it bound and knows no destination. False if
/// the system refused; the error is set then.
pub fn bind_deferred(s: SOCKET) -> bool {
    if !deferred::remove(s) {
        return true;
    }
    let Some(rewriter) = rewriter() else { return bind_to_wildcard(s) };
    match rewriter.listen(&Winsock(s)) {
        Outcome::Rewritten(bind) if bind_rewritten(s, &bind) == 0 => true,
        Outcome::Rewritten(bind) if !rewriter.retries_untouched(bind.address.ip()) => false,
        _ => bind_to_wildcard(s),
    }
}

/// Binds to the wildcard address, as the program had asked.
pub fn bind_to_wildcard(s: SOCKET) -> bool {
    use vipool::rewrite::Socket;

    match Winsock(s).local() {
        Some(local) if local.port() == 0 => Winsock(s).bind(SocketAddr::new(local.ip(), 0)),
        _ => true,
    }
}

pub unsafe extern "system" fn listen(s: SOCKET, backlog: i32) -> i32 {
    let error = LastError::save();
    // A socket that was never bound is left to the system: it answers WSAEINVAL.
    if deferred::contains(s) && !bind_deferred(s) {
        return SOCKET_ERROR;
    }
    error.restore();
    // SAFETY: the program's own call.
    unsafe { original::listen(s, backlog) }
}

pub unsafe extern "system" fn closesocket(s: SOCKET) -> i32 {
    deferred::remove(s);
    // SAFETY: the program's own call.
    unsafe { original::closesocket(s) }
}
