//! Datagrams: their destination, their source, and the packet information in control messages.
//!
//! The addresses that an overlapped receive delivers are not rewritten (docs/compatibility.md). The
//! system can complete such a receive after the call has returned. If it completes the receive at
//! once, it has queued the completion before the call returns, so another thread of the program may
//! already have freed the buffers.

use vipool::rewrite::control_message::replace_packet_info;
use vipool::rewrite::{Protocol, Socket};
use windows_sys::Win32::Networking::WinSock::{
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, SOCKADDR, SOCKET, SOCKET_ERROR, WSABUF, WSAMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{PCSTR, PSTR};

use super::control::ControlBuf;
use super::destination::{Destination, prepare_destination};
use super::extension;
use crate::context::rewriter;
use crate::last_error::LastError;
use crate::socket::{Winsock, overwrite_sockaddr, read_sockaddr};
use crate::{memory, original};

fn prepare_send(socket: SOCKET, to: *const SOCKADDR, length: i32) -> Destination {
    if to.is_null() {
        return Destination::Unchanged;
    }
    prepare_destination(
        socket,
        |rewriter, socket, to| rewriter.send(&socket, to, false),
        to,
        length,
    )
}

pub unsafe extern "system" fn sendto(
    socket: SOCKET,
    data: PCSTR,
    size: i32,
    flags: i32,
    to: *const SOCKADDR,
    length: i32,
) -> i32 {
    let destination = prepare_send(socket, to, length);
    let Some((to, length)) = destination.sockaddr(to, length) else { return SOCKET_ERROR };
    // SAFETY: the arguments come from the program. A rewritten address is valid too.
    unsafe { original::sendto(socket, data, size, flags, to, length) }
}

pub unsafe extern "system" fn wsa_send_to(
    socket: SOCKET,
    data: *const WSABUF,
    count: u32,
    sent: *mut u32,
    flags: u32,
    to: *const SOCKADDR,
    length: i32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let destination = prepare_send(socket, to, length);
    let Some((to, length)) = destination.sockaddr_of_overlapped(to, length, overlapped) else {
        return SOCKET_ERROR;
    };
    // SAFETY: the arguments come from the program. A rewritten address is valid too, also after an
    // overlapped call has returned.
    unsafe {
        original::WSASendTo(socket, data, count, sent, flags, to, length, overlapped, routine)
    }
}

/// A message that replaces the program's message.
struct RewrittenMessage {
    /// A copy of the program's message. `as_wsamsg` makes it point to the rewritten parts.
    message: WSAMSG,
    destination: Destination,
    /// The rewritten control messages. `None` if the control messages are sent unchanged.
    control: Option<ControlBuf>,
}

impl RewrittenMessage {
    /// Returns the message to send instead of `message`. Returns `None` if the hook layer must send
    /// `message` unchanged.
    fn from_program(socket: SOCKET, message: *const WSAMSG) -> Option<Self> {
        let message = memory::read(message)?;
        let destination = prepare_send(socket, message.name, message.namelen);
        let to = match &destination {
            Destination::Rewritten { address, .. } => {
                read_sockaddr(address.as_ptr(), address.length())
            }
            _ => read_sockaddr(message.name, message.namelen),
        };
        let control = ControlBuf::copy(&message.Control).and_then(|mut control| {
            let rewriter = rewriter()?;
            let is_changed = replace_packet_info(control.as_mut_slice(), |info| {
                rewriter.send_packet_info(&Winsock(socket), info, to).rewritten()
            });
            is_changed.then_some(control)
        });
        if matches!(destination, Destination::Unchanged) && control.is_none() {
            return None;
        }
        Some(Self { message, destination, control })
    }

    /// Returns the message to send with this `overlapped` argument. Its pointers are valid until
    /// `self` moves, and the address of an overlapped call stays valid. Returns `None` if the call
    /// must fail; the last error is set.
    fn as_wsamsg(&mut self, overlapped: *const OVERLAPPED) -> Option<&WSAMSG> {
        let (name, length) = (self.message.name, self.message.namelen);
        let (name, length) = self.destination.sockaddr_of_overlapped(name, length, overlapped)?;
        self.message.name = name.cast_mut();
        self.message.namelen = length;
        if let Some(control) = &mut self.control {
            self.message.Control.buf = control.as_mut_slice().as_mut_ptr();
        }
        Some(&self.message)
    }
}

/// Sends the program's message, or a rewritten message instead.
///
/// The rewritten message and its control messages are on the stack, so the system must copy them
/// before an overlapped call returns (docs/windows.md). Wine copies the message and ignores control
/// messages.
fn send_message(
    socket: SOCKET,
    message: *const WSAMSG,
    overlapped: *const OVERLAPPED,
    send: impl FnOnce(*const WSAMSG) -> i32,
) -> i32 {
    let saved_error = LastError::save();
    let mut rewritten = RewrittenMessage::from_program(socket, message);
    let message: *const WSAMSG = match &mut rewritten {
        None => message,
        Some(rewritten) => match rewritten.as_wsamsg(overlapped) {
            Some(message) => message,
            None => return SOCKET_ERROR,
        },
    };
    saved_error.restore();
    send(message)
}

pub unsafe extern "system" fn wsa_send_msg(
    socket: SOCKET,
    message: *const WSAMSG,
    flags: u32,
    sent: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    send_message(socket, message, overlapped, |message| {
        // SAFETY: the arguments come from the program. A rewritten message is valid too.
        unsafe { original::WSASendMsg(socket, message, flags, sent, overlapped, routine) }
    })
}

/// Replaces the WSASendMsg that programs get from WSAIoctl.
pub unsafe extern "system" fn wsa_send_msg_extension(
    socket: SOCKET,
    message: *const WSAMSG,
    flags: u32,
    sent: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let Some(original) = extension::wsa_send_msg() else { return SOCKET_ERROR };
    send_message(socket, message, overlapped, |message| {
        // SAFETY: the arguments come from the program. A rewritten message is valid too.
        unsafe { original(socket, message, flags, sent, overlapped, routine) }
    })
}

/// Rewrites the source of a received datagram in the buffer of the program.
///
/// # Safety
/// `from` and `length` are output arguments of a receive call on this socket. The call has just
/// returned, and no completion of the call is queued.
unsafe fn rewrite_source(socket: SOCKET, from: *mut SOCKADDR, length: *const i32) {
    if from.is_null() {
        return;
    }
    let saved_error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(length) = memory::read(length)
        && let Some(source) = read_sockaddr(from, length)
        && let Some(visible) =
            rewriter.visible_address(source, || Winsock(socket).local_name()).rewritten()
        // On a stream socket, the system leaves the buffer unchanged.
        && Winsock(socket).protocol() != Protocol::Tcp
    {
        // SAFETY: the caller guarantees that the system has just written `length` bytes to this
        // buffer of the program, and that the program still waits for the call.
        unsafe { overwrite_sockaddr(from, length, visible) };
    }
    saved_error.restore();
}

pub unsafe extern "system" fn recvfrom(
    socket: SOCKET,
    data: PSTR,
    size: i32,
    flags: i32,
    from: *mut SOCKADDR,
    length: *mut i32,
) -> i32 {
    // SAFETY: the arguments come from the program.
    let received = unsafe { original::recvfrom(socket, data, size, flags, from, length) };
    if received >= 0 {
        // SAFETY: the call has just written its output arguments, and it is not overlapped.
        unsafe { rewrite_source(socket, from, length) };
    }
    received
}

pub unsafe extern "system" fn wsa_recv_from(
    socket: SOCKET,
    data: *const WSABUF,
    count: u32,
    received: *mut u32,
    flags: *mut u32,
    from: *mut SOCKADDR,
    length: *mut i32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // SAFETY: the arguments come from the program.
    let result = unsafe {
        original::WSARecvFrom(
            socket, data, count, received, flags, from, length, overlapped, routine,
        )
    };
    if result == 0 && overlapped.is_null() {
        // SAFETY: the call has just written its output arguments, and it is not overlapped.
        unsafe { rewrite_source(socket, from, length) };
    }
    result
}

/// Replaces the WSARecvMsg that programs get from WSAIoctl.
pub unsafe extern "system" fn wsa_recv_msg(
    socket: SOCKET,
    message: *mut WSAMSG,
    received: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let Some(original) = extension::wsa_recv_msg() else { return SOCKET_ERROR };
    // SAFETY: the arguments come from the program.
    let result = unsafe { original(socket, message, received, overlapped, routine) };
    if result == 0
        && overlapped.is_null()
        && let Some(received_message) = memory::read(message.cast_const())
    {
        let source = read_sockaddr(received_message.name, received_message.namelen);
        // SAFETY: the call has just written the message, and it is not overlapped.
        unsafe { rewrite_source(socket, received_message.name, &received_message.namelen) };
        let saved_error = LastError::save();
        if let Some(rewriter) = rewriter()
            && let Some(mut control) = ControlBuf::copy(&received_message.Control)
            && replace_packet_info(control.as_mut_slice(), |info| {
                let read_source = || source.or_else(|| Winsock(socket).peer_name());
                rewriter.visible_packet_info(info, read_source).rewritten()
            })
        {
            let control = control.as_mut_slice();
            // SAFETY: the system has just written `control.len()` bytes to `Control.buf`. The call
            // is not overlapped, so the program still waits for it.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    control.as_ptr(),
                    received_message.Control.buf,
                    control.len(),
                );
            }
        }
        saved_error.restore();
    }
    result
}
