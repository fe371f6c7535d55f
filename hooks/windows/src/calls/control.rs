//! A copy of the control messages of WSASendMsg and WSARecvMsg.

use windows_sys::Win32::Networking::WinSock::WSABUF;

use crate::memory;

/// A copy of the control messages of a datagram, aligned like `WSACMSGHDR`.
#[repr(C, align(8))]
pub struct ControlBuf {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl ControlBuf {
    /// The maximum size of the copy in bytes. The control messages of IPv4 and IPv6 need less in
    /// total.
    const CAPACITY: usize = 512;

    /// Copies the control messages from the buffer of the program. Returns `None` if they are
    /// longer than the capacity or not readable.
    pub fn copy(source: &WSABUF) -> Option<Self> {
        let length = if source.buf.is_null() { 0 } else { source.len as usize };
        let mut control = Self { bytes: [0; Self::CAPACITY], length };
        let target = control.bytes.get_mut(..length)?;
        (length == 0 || memory::read_bytes(source.buf.cast(), target)).then_some(control)
    }

    /// Returns the control messages.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vipool::rewrite::PacketInfo;
    use vipool::rewrite::control_message::{HEADER_LENGTH, replace_packet_info};
    use windows_sys::Win32::Networking::WinSock::{
        IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO,
    };

    use super::*;

    /// Builds control messages from tuples of level, type and data.
    fn control_buf(messages: &[(i32, i32, &[u8])]) -> ControlBuf {
        let mut control = ControlBuf { bytes: [0; ControlBuf::CAPACITY], length: 0 };
        for (level, message_type, data) in messages {
            let offset = control.length;
            let length = HEADER_LENGTH + data.len();
            control.bytes[offset..offset + 8].copy_from_slice(&length.to_ne_bytes());
            control.bytes[offset + 8..offset + 12].copy_from_slice(&level.to_ne_bytes());
            control.bytes[offset + 12..offset + 16].copy_from_slice(&message_type.to_ne_bytes());
            control.bytes[offset + 16..offset + length].copy_from_slice(data);
            control.length = offset + length.next_multiple_of(8);
        }
        control
    }

    #[test]
    fn only_packet_info_is_rewritten() {
        let time_to_live = [7u8; 4];
        let mut v6_info = [0; 20];
        v6_info[15] = 1;
        let mut control = control_buf(&[
            (IPPROTO_IP, 21, &time_to_live),
            (IPPROTO_IP, IP_PKTINFO, &[127, 0, 0, 1, 9, 0, 0, 0]),
            (IPPROTO_IPV6, IPV6_PKTINFO, &v6_info),
        ]);
        let original_bytes = control.bytes;
        let is_changed = replace_packet_info(control.as_mut_slice(), |info| match info.address {
            IpAddr::V4(_) => Some(PacketInfo { address: [127, 3, 4, 5].into(), interface: 1 }),
            IpAddr::V6(_) => None,
        });
        assert!(is_changed);
        let changed_offsets: Vec<usize> =
            (0..512).filter(|offset| control.bytes[*offset] != original_bytes[*offset]).collect();
        assert_eq!(changed_offsets, [24 + 17, 24 + 18, 24 + 19, 24 + 20]);
    }

    #[test]
    fn any_header_length_terminates() {
        for length in [0usize, 1, 8, 15, 16, 17, usize::MAX, usize::MAX - 7] {
            let mut control = control_buf(&[(IPPROTO_IP, IP_PKTINFO, &[1, 2, 3, 4])]);
            control.bytes[..8].copy_from_slice(&length.to_ne_bytes());
            replace_packet_info(control.as_mut_slice(), |_| None);
        }
    }
}
