//! The control messages of WSASendMsg and WSARecvMsg.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::Networking::WinSock::{
    IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, WSABUF,
};

use crate::memory;

/// The size of `WSACMSGHDR`: length, level and type. Headers and data are aligned to 8 bytes.
const HEADER_SIZE: usize = 16;

/// A copy of the control messages of a datagram.
#[repr(C, align(8))]
pub struct ControlBuf {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl ControlBuf {
    /// More than all control messages of IPv4 and IPv6 need together.
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

    /// Calls `rewrite` with the address of each packet information, and stores the address that it
    /// returns. Returns whether any address was replaced.
    pub fn rewrite_packet_info(
        &mut self,
        mut rewrite: impl FnMut(IpAddr) -> Option<IpAddr>,
    ) -> bool {
        let mut is_changed = false;
        let mut offset = 0;
        while let Some(header) = self.bytes[..self.length].get(offset..offset + HEADER_SIZE) {
            let field = |start: usize| {
                i32::from_ne_bytes(header[start..start + 4].try_into().unwrap_or_default())
            };
            let length = usize::from_ne_bytes(header[..8].try_into().unwrap_or_default());
            let (level, kind) = (field(8), field(12));
            let end = offset.saturating_add(length).min(self.length);
            let data = self.bytes.get_mut(offset + HEADER_SIZE..end).unwrap_or_default();
            is_changed |= match (level, kind) {
                (IPPROTO_IP, IP_PKTINFO) => rewrite_address::<4>(data, &mut rewrite),
                (IPPROTO_IPV6, IPV6_PKTINFO) => rewrite_address::<16>(data, &mut rewrite),
                _ => false,
            };
            offset = offset.saturating_add(length.saturating_add(7) & !7);
            if length < HEADER_SIZE || offset > self.length {
                break;
            }
        }
        is_changed
    }
}

/// Rewrites the address of a packet information, which begins with the address. Returns whether it
/// was replaced.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn control(messages: &[(i32, i32, &[u8])]) -> ControlBuf {
        let mut control = ControlBuf { bytes: [0; ControlBuf::CAPACITY], length: 0 };
        for (level, kind, data) in messages {
            let offset = control.length;
            let length = HEADER_SIZE + data.len();
            control.bytes[offset..offset + 8].copy_from_slice(&length.to_ne_bytes());
            control.bytes[offset + 8..offset + 12].copy_from_slice(&level.to_ne_bytes());
            control.bytes[offset + 12..offset + 16].copy_from_slice(&kind.to_ne_bytes());
            control.bytes[offset + 16..offset + length].copy_from_slice(data);
            control.length = offset + length.next_multiple_of(8);
        }
        control
    }

    #[test]
    fn only_packet_info_addresses_are_rewritten() {
        let time_to_live = [7u8; 4];
        let mut v6 = [0; 20];
        v6[15] = 1;
        let mut control = control(&[
            (IPPROTO_IP, 21, &time_to_live),
            (IPPROTO_IP, IP_PKTINFO, &[127, 0, 0, 1, 9, 0, 0, 0]),
            (IPPROTO_IPV6, IPV6_PKTINFO, &v6),
        ]);
        let before = control.bytes;
        let is_changed = control.rewrite_packet_info(|ip| match ip {
            IpAddr::V4(_) => Some(IpAddr::from([127, 3, 4, 5])),
            IpAddr::V6(_) => None,
        });
        assert!(is_changed);
        let changed_offsets: Vec<usize> =
            (0..512).filter(|i| control.bytes[*i] != before[*i]).collect();
        assert_eq!(changed_offsets, [24 + 17, 24 + 18, 24 + 19]);
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
