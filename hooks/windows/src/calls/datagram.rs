//! Datagrams: their destination, their source, and the control messages that name either.
//!
//! An overlapped receive that is still under way when the call returns is received_message in by the system
//! later: its source is shown as it is (docs/compatibility.md).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::Networking::WinSock::{
    IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    SOCKADDR, SOCKET, SOCKET_ERROR, WSABUF, WSAMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{PCSTR, PSTR};

use super::connect::{Destination, prepare_destination};
use super::{extension, rewriter};
use crate::memory;
use crate::socket::{LastError, Winsock, overwrite_sockaddr, read_sockaddr};
use crate::table::original;

fn prepare_send(s: SOCKET, to: *const SOCKADDR, length: i32) -> Destination {
    if to.is_null() {
        return Destination::Unchanged;
    }
    prepare_destination(s, |rewriter, socket, to| rewriter.send(&socket, to, false), to, length)
}

pub unsafe extern "system" fn sendto(
    s: SOCKET,
    data: PCSTR,
    size: i32,
    flags: i32,
    to: *const SOCKADDR,
    length: i32,
) -> i32 {
    let destination = prepare_send(s, to, length);
    let Some((to, length)) = destination.sockaddr(to, length) else { return SOCKET_ERROR };
    // SAFETY: the program's own call, or one with an address of ours.
    unsafe { original::sendto(s, data, size, flags, to, length) }
}

pub unsafe extern "system" fn wsa_send_to(
    s: SOCKET,
    data: *const WSABUF,
    count: u32,
    sent: *mut u32,
    flags: u32,
    to: *const SOCKADDR,
    length: i32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let destination = prepare_send(s, to, length);
    let Some((to, length)) = destination.sockaddr(to, length) else { return SOCKET_ERROR };
    // SAFETY: the program's own call, or one with an address of ours.
    unsafe { original::WSASendTo(s, data, count, sent, flags, to, length, overlapped, routine) }
}

/// What a message goes on with in place of the program's.
struct RewrittenMessage {
    /// The program's message with `destination` and `control` in it.
    message: WSAMSG,
    destination: Destination,
    control: ControlBuf,
}

impl RewrittenMessage {
    /// `None` if the message goes on as it is.
    fn from_program(s: SOCKET, message: *const WSAMSG) -> Option<Self> {
        let message = memory::read(message)?;
        let destination = prepare_send(s, message.name, message.namelen);
        let to = match &destination {
            Destination::Rewritten(name) => read_sockaddr(name.as_ptr(), name.length()),
            _ => read_sockaddr(message.name, message.namelen),
        };
        let mut control = ControlBuf::copy(&message.Control)?;
        let changed = rewriter().is_some_and(|rewriter| {
            control.rewrite_packet_info(|ip| rewriter.send_source(ip, to).rewritten())
        });
        if matches!(destination, Destination::Unchanged) && !changed {
            return None;
        }
        Some(Self { message, destination, control })
    }

    /// The message to send; its pointers lead into `self`, which must not move meanwhile.
    fn as_wsamsg(&mut self) -> &WSAMSG {
        if let Destination::Rewritten(name) = &self.destination {
            self.message.name = name.as_ptr().cast_mut();
            self.message.namelen = name.length();
        }
        if self.control.length > 0 {
            self.message.Control.buf = self.control.bytes.as_mut_ptr();
        }
        &self.message
    }
}

/// Sends the program's message, or one in its place.
fn send_message(s: SOCKET, message: *const WSAMSG, send: impl FnOnce(*const WSAMSG) -> i32) -> i32 {
    let error = LastError::save();
    let mut rewritten = RewrittenMessage::from_program(s, message);
    let message: *const WSAMSG = match &mut rewritten {
        None => message,
        Some(RewrittenMessage { destination: Destination::Failed, .. }) => return SOCKET_ERROR,
        Some(rewritten) => rewritten.as_wsamsg(),
    };
    error.restore();
    send(message)
}

pub unsafe extern "system" fn wsa_send_msg(
    s: SOCKET,
    message: *const WSAMSG,
    flags: u32,
    sent: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    send_message(s, message, |message| {
        // SAFETY: the program's own call, or one with a message of ours.
        unsafe { original::WSASendMsg(s, message, flags, sent, overlapped, routine) }
    })
}

/// Stands for the WSASendMsg that the program got from WSAIoctl.
pub unsafe extern "system" fn wsa_send_msg_extension(
    s: SOCKET,
    message: *const WSAMSG,
    flags: u32,
    sent: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let Some(original) = extension::wsa_send_msg() else { return SOCKET_ERROR };
    send_message(s, message, |message| {
        // SAFETY: as above.
        unsafe { original(s, message, flags, sent, overlapped, routine) }
    })
}

/// Shows the source of a datagram that has just been received.
fn rewrite_source(s: SOCKET, from: *mut SOCKADDR, length: *const i32) {
    if from.is_null() {
        return;
    }
    let error = LastError::save();
    if let Some(rewriter) = rewriter()
        && let Some(source) = memory::read(length).and_then(|length| read_sockaddr(from, length))
        && let Some(shown) = rewriter.shown(source, || Winsock(s).local_name()).rewritten()
    {
        overwrite_sockaddr(from, shown);
    }
    error.restore();
}

pub unsafe extern "system" fn recvfrom(
    s: SOCKET,
    data: PSTR,
    size: i32,
    flags: i32,
    from: *mut SOCKADDR,
    length: *mut i32,
) -> i32 {
    // SAFETY: the program's own call.
    let received = unsafe { original::recvfrom(s, data, size, flags, from, length) };
    if received >= 0 {
        rewrite_source(s, from, length);
    }
    received
}

pub unsafe extern "system" fn wsa_recv_from(
    s: SOCKET,
    data: *const WSABUF,
    count: u32,
    received: *mut u32,
    flags: *mut u32,
    from: *mut SOCKADDR,
    length: *mut i32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // SAFETY: the program's own call.
    let result = unsafe {
        original::WSARecvFrom(s, data, count, received, flags, from, length, overlapped, routine)
    };
    if result == 0 {
        rewrite_source(s, from, length);
    }
    result
}

/// Stands for the WSARecvMsg that the program got from WSAIoctl.
pub unsafe extern "system" fn wsa_recv_msg(
    s: SOCKET,
    message: *mut WSAMSG,
    received: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    let Some(original) = extension::wsa_recv_msg() else { return SOCKET_ERROR };
    // SAFETY: the program's own call.
    let result = unsafe { original(s, message, received, overlapped, routine) };
    if result == 0
        && let Some(received_message) = memory::read(message.cast_const())
    {
        rewrite_source(s, received_message.name, &received_message.namelen);
        let error = LastError::save();
        if let Some(rewriter) = rewriter()
            && let Some(mut control) = ControlBuf::copy(&received_message.Control)
            && control.rewrite_packet_info(|ip| rewriter.shown_ip(ip).rewritten())
        {
            // SAFETY: the system has just written so many bytes there.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    control.bytes.as_ptr(),
                    received_message.Control.buf,
                    control.length,
                );
            }
        }
        error.restore();
    }
    result
}

/// A copy of a message's control data, which may hold a packet information.
#[repr(C, align(8))]
struct ControlBuf {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

/// Length, level and type: `WSACMSGHDR`, which is aligned to 8 bytes as its data are.
const HEADER: usize = 16;

impl ControlBuf {
    /// More than all control messages of IPv4 and IPv6 take together.
    const CAPACITY: usize = 512;

    /// `None` if it is longer than any that we know, or can't be read.
    fn copy(from: &WSABUF) -> Option<Self> {
        let length = if from.buf.is_null() { 0 } else { from.len as usize };
        let mut control = Self { bytes: [0; Self::CAPACITY], length };
        let into = control.bytes.get_mut(..length)?;
        (length == 0 || memory::read_bytes(from.buf.cast(), into)).then_some(control)
    }

    /// Puts another address in place of that of each packet information; whether any was changed.
    fn rewrite_packet_info(&mut self, mut rewrite: impl FnMut(IpAddr) -> Option<IpAddr>) -> bool {
        let mut changed = false;
        let mut at = 0;
        while let Some(header) = self.bytes[..self.length].get(at..at + HEADER) {
            let word =
                |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().unwrap_or_default());
            let length = usize::from_ne_bytes(header[..8].try_into().unwrap_or_default());
            let (level, kind) = (word(8), word(12));
            let end = at.saturating_add(length).min(self.length);
            let data = self.bytes.get_mut(at + HEADER..end).unwrap_or_default();
            changed |= match (level, kind) {
                (IPPROTO_IP, IP_PKTINFO) => Self::rewrite_address::<4>(data, &mut rewrite),
                (IPPROTO_IPV6, IPV6_PKTINFO) => Self::rewrite_address::<16>(data, &mut rewrite),
                _ => false,
            };
            at = at.saturating_add(length.saturating_add(7) & !7);
            if length < HEADER || at > self.length {
                break;
            }
        }
        changed
    }

    /// The address is what a packet information begins with.
    fn rewrite_address<const N: usize>(
        data: &mut [u8],
        rewrite: &mut impl FnMut(IpAddr) -> Option<IpAddr>,
    ) -> bool {
        let Some(octets) = data.first_chunk_mut::<N>() else { return false };
        let ip = match <[u8; 16]>::try_from(&octets[..]) {
            Ok(v6) => IpAddr::V6(Ipv6Addr::from(v6)),
            Err(_) => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        };
        match rewrite(ip) {
            Some(IpAddr::V4(v4)) if N == 4 => octets.copy_from_slice(&v4.octets()),
            Some(IpAddr::V6(v6)) if N == 16 => octets.copy_from_slice(&v6.octets()),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(messages: &[(i32, i32, &[u8])]) -> ControlBuf {
        let mut control = ControlBuf { bytes: [0; ControlBuf::CAPACITY], length: 0 };
        for (level, kind, data) in messages {
            let at = control.length;
            let length = HEADER + data.len();
            control.bytes[at..at + 8].copy_from_slice(&length.to_ne_bytes());
            control.bytes[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
            control.bytes[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
            control.bytes[at + 16..at + length].copy_from_slice(data);
            control.length = at + length.next_multiple_of(8);
        }
        control
    }

    #[test]
    fn only_packet_info_addresses_are_rewritten() {
        let other = [7u8; 4];
        let mut v6 = [0; 20];
        v6[15] = 1;
        let mut control = control(&[
            (IPPROTO_IP, 21, &other),
            (IPPROTO_IP, IP_PKTINFO, &[127, 0, 0, 1, 9, 0, 0, 0]),
            (IPPROTO_IPV6, IPV6_PKTINFO, &v6),
        ]);
        let before = control.bytes;
        let changed = control.rewrite_packet_info(|ip| match ip {
            IpAddr::V4(_) => Some(IpAddr::from([127, 3, 4, 5])),
            IpAddr::V6(_) => None,
        });
        assert!(changed);
        let changed_bytes: Vec<usize> =
            (0..512).filter(|i| control.bytes[*i] != before[*i]).collect();
        assert_eq!(changed_bytes, [24 + 17, 24 + 18, 24 + 19]);
    }

    #[test]
    fn any_header_length_terminates() {
        for length in [0usize, 1, 8, 15, 16, 17, usize::MAX, usize::MAX - 7] {
            let mut control = control(&[(IPPROTO_IP, IP_PKTINFO, &[1, 2, 3, 4])]);
            control.bytes[..8].copy_from_slice(&length.to_ne_bytes());
            control.rewrite_packet_info(|_| None);
        }
    }
}
