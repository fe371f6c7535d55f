//! connect, WSAConnect and ConnectEx.

use vipool::rewrite::{Connect, Outcome};
use windows_sys::Win32::Networking::WinSock::{QOS, SOCKADDR, SOCKET, SOCKET_ERROR, WSABUF};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::BOOL;

use super::bind::bind_to_wildcard;
use super::destination::{Destination, prepare_destination};
use super::extension;
use crate::last_error::LastError;
use crate::{deferred, original};

fn prepare_connect(socket: SOCKET, name: *const SOCKADDR, length: i32) -> Destination {
    let destination = prepare_destination(
        socket,
        |rewriter, socket, to| rewriter.connect(&socket, to),
        name,
        length,
    );
    // During the connect, the system binds the socket if it is unbound. So the hook layer no longer
    // needs to perform the deferred bind.
    if !matches!(destination, Destination::Failed) {
        deferred::remove(socket);
    }
    destination
}

pub unsafe extern "system" fn connect(socket: SOCKET, name: *const SOCKADDR, length: i32) -> i32 {
    let destination = prepare_connect(socket, name, length);
    let Some((name, length)) = destination.sockaddr(name, length) else { return SOCKET_ERROR };
    // SAFETY: the arguments come from the program. A rewritten address is valid too.
    let result = unsafe { original::connect(socket, name, length) };
    destination.restore_v6only_on_failure(socket, result != 0);
    result
}

pub unsafe extern "system" fn wsa_connect(
    socket: SOCKET,
    name: *const SOCKADDR,
    length: i32,
    caller: *const WSABUF,
    callee: *mut WSABUF,
    socket_qos: *const QOS,
    group_qos: *const QOS,
) -> i32 {
    let destination = prepare_connect(socket, name, length);
    let Some((name, length)) = destination.sockaddr(name, length) else { return SOCKET_ERROR };
    // SAFETY: the arguments come from the program. A rewritten address is valid too.
    let result = unsafe {
        original::WSAConnect(socket, name, length, caller, callee, socket_qos, group_qos)
    };
    destination.restore_v6only_on_failure(socket, result != 0);
    result
}

/// Replaces ConnectEx, which programs get from WSAIoctl.
///
/// The system requires a bound socket. If the program never bound the socket, the system reports
/// WSAEINVAL. If the bind of the socket is deferred, this function binds the socket first (row 46).
pub unsafe extern "system" fn connect_ex(
    socket: SOCKET,
    name: *const SOCKADDR,
    length: i32,
    send_buffer: *const std::ffi::c_void,
    send_length: u32,
    bytes_sent: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> BOOL {
    let Some(original) = extension::connect_ex() else { return 0 };
    let has_deferred_bind = deferred::contains(socket);
    let destination = prepare_destination(
        socket,
        |rewriter, socket, to| match rewriter.connect(&socket, to) {
            Outcome::Rewritten(connect) if !has_deferred_bind => {
                Outcome::Rewritten(Connect { source: None, ..connect })
            }
            outcome => outcome,
        },
        name,
        length,
    );
    if deferred::remove(socket) {
        let saved_error = LastError::save();
        if !bind_to_wildcard(socket) {
            return 0;
        }
        saved_error.restore();
    }
    let Some((name, length)) = destination.sockaddr_of_overlapped(name, length, overlapped) else {
        destination.restore_v6only_on_failure(socket, true);
        return 0;
    };
    // SAFETY: the arguments come from the program. A rewritten address is valid too, also after an
    // overlapped call has returned.
    let result =
        unsafe { original(socket, name, length, send_buffer, send_length, bytes_sent, overlapped) };
    destination.restore_v6only_on_failure(socket, result == 0);
    result
}
