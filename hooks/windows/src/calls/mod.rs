//! The functions that stand for the system's own, one module per kind of call.
//!
//! Each of them decides first and then makes the original call, with nothing of ours live around
//! it. Where the system calls one of these from inside another (WSAConnect calls connect), the
//! second finds an address that is rewritten already, and passes.

pub mod adapters;
pub mod bind;
pub mod connect;
pub mod datagram;
pub mod extension;
pub mod resolver;
pub mod socket_names;

use std::net::IpAddr;

use vipool::rewrite::{Live, Rewriter};

use crate::context::rewriter;
use crate::socket::Winsock;

/// How binding a socket before its call went.
enum PreBind {
    /// It is bound, or goes on unbound because the policy says so.
    Continue,
    /// The error is set.
    Failed,
}

/// Binds a socket to an address of the session's own, with no port in particular. If that is on
/// no interface the policy says whether the call goes on (row 6); a socket that somebody else has
/// bound in the meantime goes on.
fn bind_before_call(rewriter: &Rewriter<'_, Live<'_>>, socket: Winsock, source: IpAddr) -> PreBind {
    use windows_sys::Win32::Networking::WinSock::{WSAEADDRNOTAVAIL, WSAGetLastError};

    if socket.bind((source, 0).into()) {
        return PreBind::Continue;
    }
    // SAFETY: reads a word of this thread.
    let is_missing = unsafe { WSAGetLastError() } == WSAEADDRNOTAVAIL;
    if is_missing && !rewriter.retries_untouched(source) {
        PreBind::Failed
    } else {
        PreBind::Continue
    }
}
