//! connect, WSAConnect and ConnectEx.

use std::net::SocketAddr;

use vipool::rewrite::{Connect, Live, Outcome, Rewriter};
use windows_sys::Win32::Networking::WinSock::{
    QOS, SOCKADDR, SOCKET, SOCKET_ERROR, WSABUF, WSAEADDRNOTAVAIL,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::BOOL;

use super::bind::bind_to_wildcard;
use super::{PreBind, bind_before_call, extension, rewriter};
use crate::deferred;
use crate::socket::{LastError, SockaddrBuf, Winsock, read_sockaddr, set_last_error};
use crate::table::original;

/// How a call that names a destination goes on.
pub enum Destination {
    /// As the program made it.
    Unchanged,
    /// To this address.
    Rewritten(SockaddrBuf),
    /// Not at all; the error is set.
    Failed,
}

impl Destination {
    /// The destination of the call, which was made with `name`; `None` if it is not to be made.
    pub fn sockaddr(&self, name: *const SOCKADDR, length: i32) -> Option<(*const SOCKADDR, i32)> {
        match self {
            Destination::Unchanged => Some((name, length)),
            Destination::Rewritten(to) => Some((to.as_ptr(), to.length())),
            Destination::Failed => None,
        }
    }
}

/// Decides for a destination and does what comes before the call.
pub fn prepare_destination(
    s: SOCKET,
    decide: impl FnOnce(&Rewriter<'_, Live<'_>>, Winsock, SocketAddr) -> Outcome<Connect>,
    name: *const SOCKADDR,
    length: i32,
) -> Destination {
    let error = LastError::save();
    let destination = || {
        let (rewriter, to) = (rewriter()?, read_sockaddr(name, length)?);
        if let Outcome::Rewritten(interface) = rewriter.multicast_interface(to.ip()) {
            Winsock(s).set_multicast_interface(interface);
        }
        match decide(&rewriter, Winsock(s), to) {
            Outcome::Passed(_) => None,
            Outcome::Refused(_) => {
                set_last_error(WSAEADDRNOTAVAIL);
                Some(Destination::Failed)
            }
            Outcome::Rewritten(connect) => {
                Some(apply_decision(&rewriter, Winsock(s), to, &connect))
            }
        }
    };
    let destination = destination().unwrap_or(Destination::Unchanged);
    if !matches!(destination, Destination::Failed) {
        error.restore();
    }
    destination
}

fn apply_decision(
    rewriter: &Rewriter<'_, Live<'_>>,
    socket: Winsock,
    requested: SocketAddr,
    connect: &Connect,
) -> Destination {
    if connect.clear_v6only {
        socket.set_v6only(false);
    }
    if let Some(source) = connect.bind {
        deferred::remove(socket.0);
        if let PreBind::Failed = bind_before_call(rewriter, socket, source) {
            return Destination::Failed;
        }
    }
    if connect.to == requested {
        Destination::Unchanged
    } else {
        Destination::Rewritten(SockaddrBuf::new(connect.to))
    }
}

fn prepare_connect(s: SOCKET, name: *const SOCKADDR, length: i32) -> Destination {
    prepare_destination(s, |rewriter, socket, to| rewriter.connect(&socket, to), name, length)
}

pub unsafe extern "system" fn connect(s: SOCKET, name: *const SOCKADDR, length: i32) -> i32 {
    let destination = prepare_connect(s, name, length);
    // The call binds what is not bound.
    deferred::remove(s);
    let Some((name, length)) = destination.sockaddr(name, length) else { return SOCKET_ERROR };
    // SAFETY: the program's own call, or one with an address of ours.
    unsafe { original::connect(s, name, length) }
}

pub unsafe extern "system" fn wsa_connect(
    s: SOCKET,
    name: *const SOCKADDR,
    length: i32,
    caller: *const WSABUF,
    callee: *mut WSABUF,
    quality: *const QOS,
    group: *const QOS,
) -> i32 {
    let destination = prepare_connect(s, name, length);
    deferred::remove(s);
    let Some((name, length)) = destination.sockaddr(name, length) else { return SOCKET_ERROR };
    // SAFETY: the program's own call, or one with an address of ours.
    unsafe { original::WSAConnect(s, name, length, caller, callee, quality, group) }
}

/// Stands for the ConnectEx that the program asked for. The system wants the socket bound: one
/// that never was gets its WSAEINVAL, one whose bind was put off is bound now (row 46).
pub unsafe extern "system" fn connect_ex(
    s: SOCKET,
    name: *const SOCKADDR,
    length: i32,
    data: *const std::ffi::c_void,
    size: u32,
    sent: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> BOOL {
    let Some(original) = extension::connect_ex() else { return 0 };
    let was_deferred = deferred::contains(s);
    let destination = prepare_destination(
        s,
        |rewriter, socket, to| match rewriter.connect(&socket, to) {
            Outcome::Rewritten(connect) if !was_deferred => {
                Outcome::Rewritten(Connect { bind: None, ..connect })
            }
            decision => decision,
        },
        name,
        length,
    );
    if deferred::remove(s) {
        let error = LastError::save();
        if !bind_to_wildcard(s) {
            return 0;
        }
        error.restore();
    }
    let Some((name, length)) = destination.sockaddr(name, length) else { return 0 };
    // SAFETY: the program's own call, or one with an address of ours.
    unsafe { original(s, name, length, data, size, sent, overlapped) }
}
