//! Control messages of sendmsg and recvmsg (cmsg(3), `WSACMSGHDR`), as plain bytes.
//!
//! Each message is a header (length as `usize`, level and type as `i32`) and its data. The length
//! includes the header. The next header begins at a multiple of [`ALIGNMENT`].
//!
//! Invariants: no function allocates, panics, or reads or writes outside the slice. The iteration
//! ends at a malformed or truncated message.

use std::net::IpAddr;

use super::PacketInfo;

/// Length of the header of a control message.
pub const HEADER_LENGTH: usize = size_of::<usize>() + 2 * size_of::<i32>();
/// Alignment of each header (`CMSG_ALIGN`, `WSA_CMSGHDR_ALIGN`).
pub const ALIGNMENT: usize = size_of::<usize>();

/// `IPPROTO_IP`, the same on every platform.
const IPPROTO_IP: i32 = 0;
/// `IPPROTO_IPV6`, the same on every platform.
const IPPROTO_IPV6: i32 = 41;
/// `IP_PKTINFO` of this platform.
const IP_PKTINFO: i32 = if cfg!(windows) {
    19
} else if cfg!(target_vendor = "apple") {
    26
} else {
    8
};
/// `IPV6_PKTINFO` of this platform.
const IPV6_PKTINFO: i32 = if cfg!(windows) {
    19
} else if cfg!(target_vendor = "apple") {
    46
} else {
    50
};
/// Offsets of the addresses in a `struct in_pktinfo`. On Windows, the struct begins with the
/// address, and the interface index follows. On other systems, the struct contains the interface
/// index, the local address and the destination address.
const IN_PKTINFO_ADDRESS_OFFSETS: &[usize] = if cfg!(windows) { &[0] } else { &[4, 8] };
/// Offset of the interface index in a `struct in_pktinfo`.
const IN_PKTINFO_INTERFACE_OFFSET: usize = if cfg!(windows) { 4 } else { 0 };
/// Offset of the interface index in a `struct in6_pktinfo`. The struct begins with the address on
/// every platform.
const IN6_PKTINFO_INTERFACE_OFFSET: usize = 16;

/// Calls `visit` with the level, the type and the data of each control message.
#[inline]
pub fn for_each_control_message(control: &mut [u8], mut visit: impl FnMut(i32, i32, &mut [u8])) {
    let mut rest = control;
    while let Some((length, level, message_type)) = read_header(rest) {
        if length < HEADER_LENGTH || length > rest.len() {
            return;
        }
        visit(level, message_type, rest.get_mut(HEADER_LENGTH..length).unwrap_or_default());
        let Some(next) = rest.get_mut(length.next_multiple_of(ALIGNMENT)..) else { return };
        rest = next;
    }
}

/// Replaces the contents of `IP_PKTINFO` and `IPV6_PKTINFO` messages (ip(7), ipv6(7)).
///
/// `replace` receives each address with the interface of the message. It returns the new address
/// and interface, or `None` to keep both. If the new address has the other family, the message
/// keeps both. Returns whether any address or interface was replaced.
#[inline]
pub fn replace_packet_info(
    control: &mut [u8],
    mut replace: impl FnMut(PacketInfo) -> Option<PacketInfo>,
) -> bool {
    let mut is_replaced = false;
    for_each_control_message(control, |level, message_type, data| match (level, message_type) {
        (IPPROTO_IP, IP_PKTINFO) => {
            let interface = read_interface(data, IN_PKTINFO_INTERFACE_OFFSET);
            for offset in IN_PKTINFO_ADDRESS_OFFSETS {
                if let Some(octets) = data.get_mut(*offset..).and_then(<[u8]>::first_chunk_mut::<4>)
                    && let Some(new_info) =
                        replace(PacketInfo { address: (*octets).into(), interface })
                    && let IpAddr::V4(address) = new_info.address
                {
                    *octets = address.octets();
                    write_interface(data, IN_PKTINFO_INTERFACE_OFFSET, new_info.interface);
                    is_replaced = true;
                }
            }
        }
        (IPPROTO_IPV6, IPV6_PKTINFO) => {
            let interface = read_interface(data, IN6_PKTINFO_INTERFACE_OFFSET);
            if let Some(octets) = data.first_chunk_mut::<16>()
                && let Some(new_info) = replace(PacketInfo { address: (*octets).into(), interface })
                && let IpAddr::V6(address) = new_info.address
            {
                *octets = address.octets();
                write_interface(data, IN6_PKTINFO_INTERFACE_OFFSET, new_info.interface);
                is_replaced = true;
            }
        }
        _ => {}
    });
    is_replaced
}

/// Reads an interface index. Returns zero if the message is too short to contain the index.
#[inline]
fn read_interface(data: &[u8], offset: usize) -> u32 {
    let bytes = data.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u32::from_ne_bytes)
}

#[inline]
fn write_interface(data: &mut [u8], offset: usize, interface: u32) {
    if let Some(bytes) = data.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
        *bytes = interface.to_ne_bytes();
    }
}

/// Reads the length, the level and the type of the first message. Returns `None` if there is no
/// complete header.
#[inline]
fn read_header(control: &[u8]) -> Option<(usize, i32, i32)> {
    let header = control.first_chunk::<HEADER_LENGTH>()?;
    let (length, rest) = header.split_first_chunk()?;
    let (level, message_type) = rest.split_first_chunk()?;
    Some((
        usize::from_ne_bytes(*length),
        i32::from_ne_bytes(*level),
        i32::from_ne_bytes(*message_type.first_chunk()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a buffer with these messages, each padded to [`ALIGNMENT`].
    fn encode_messages(messages: &[(i32, i32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (level, message_type, data) in messages {
            bytes.extend((HEADER_LENGTH + data.len()).to_ne_bytes());
            bytes.extend(level.to_ne_bytes());
            bytes.extend(message_type.to_ne_bytes());
            bytes.extend(*data);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        }
        bytes
    }

    fn collect_messages(bytes: &mut [u8]) -> Vec<(i32, i32, Vec<u8>)> {
        let mut messages = Vec::new();
        for_each_control_message(bytes, |level, message_type, data| {
            messages.push((level, message_type, data.to_vec()));
        });
        messages
    }

    #[cfg(unix)]
    #[test]
    fn constants_equal_those_of_the_platform() {
        assert_eq!((IPPROTO_IP, IP_PKTINFO), (libc::IPPROTO_IP, libc::IP_PKTINFO));
        assert_eq!((IPPROTO_IPV6, IPV6_PKTINFO), (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO));
        assert_eq!(HEADER_LENGTH, size_of::<libc::cmsghdr>());
        assert_eq!(ALIGNMENT, align_of::<libc::cmsghdr>());
    }

    #[cfg(windows)]
    #[test]
    fn constants_equal_those_of_the_platform() {
        use windows_sys::Win32::Networking::WinSock;
        assert_eq!((IPPROTO_IP, IP_PKTINFO), (WinSock::IPPROTO_IP, WinSock::IP_PKTINFO));
        assert_eq!((IPPROTO_IPV6, IPV6_PKTINFO), (WinSock::IPPROTO_IPV6, WinSock::IPV6_PKTINFO));
        assert_eq!(HEADER_LENGTH, size_of::<WinSock::CMSGHDR>());
    }

    #[test]
    fn every_message_is_visited() {
        let mut bytes = encode_messages(&[(1, 2, &[3]), (4, 5, &[]), (6, 7, &[8; 20])]);
        assert_eq!(
            collect_messages(&mut bytes),
            [(1, 2, vec![3]), (4, 5, vec![]), (6, 7, vec![8; 20])]
        );
    }

    #[test]
    fn malformed_length_ends_the_iteration() {
        for length in [0, 1, HEADER_LENGTH - 1, 2 * HEADER_LENGTH + 9, usize::MAX - 7, usize::MAX] {
            let mut bytes = encode_messages(&[(1, 2, &[3]), (4, 5, &[6])]);
            let second_offset = bytes.len() / 2;
            bytes[second_offset..second_offset + ALIGNMENT].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(collect_messages(&mut bytes), [(1, 2, vec![3])], "{length}");
        }
    }

    #[test]
    fn truncated_buffers_are_not_read_past_the_end() {
        let complete_bytes = encode_messages(&[(1, 2, &[3; 5]), (4, 5, &[6; 9])]);
        for length in 0..complete_bytes.len() {
            let mut truncated = complete_bytes[..length].to_vec();
            assert!(collect_messages(&mut truncated).len() <= 2);
        }
    }

    #[test]
    fn only_packet_info_of_the_same_family_is_replaced() {
        let ipv4_info = |ip: [u8; 4], interface: u32| {
            let mut info = [9; 12];
            for offset in IN_PKTINFO_ADDRESS_OFFSETS {
                info[*offset..offset + 4].copy_from_slice(&ip);
            }
            write_interface(&mut info, IN_PKTINFO_INTERFACE_OFFSET, interface);
            info
        };
        let requested_info = ipv4_info([127, 0, 0, 1], 7);
        let mut ipv6_info = [0; 20];
        ipv6_info[15] = 1;
        let messages = [
            (IPPROTO_IP, 21, &[127, 0, 0, 1, 127, 0, 0, 1, 127, 0, 0, 1][..]),
            (IPPROTO_IP, IP_PKTINFO, &requested_info[..]),
            (IPPROTO_IPV6, IPV6_PKTINFO, &ipv6_info[..]),
        ];
        let mut bytes = encode_messages(&messages);
        let replacement = PacketInfo { address: [127, 3, 4, 5].into(), interface: 1 };
        let mut seen_interfaces = Vec::new();
        assert!(replace_packet_info(&mut bytes, |info| {
            seen_interfaces.push(info.interface);
            Some(replacement)
        }));
        let mut expected_interfaces = vec![7; IN_PKTINFO_ADDRESS_OFFSETS.len()];
        expected_interfaces.push(0);
        assert_eq!(seen_interfaces, expected_interfaces);
        let result = collect_messages(&mut bytes);
        assert_eq!(result[0].2, messages[0].2);
        assert_eq!(result[1].2, ipv4_info([127, 3, 4, 5], 1));
        assert_eq!(result[2].2, ipv6_info);
        assert!(!replace_packet_info(&mut bytes, |_| None));
    }

    #[test]
    fn ipv6_packet_info_is_replaced_with_its_interface() {
        let mut info = [0; 20];
        info[15] = 1;
        write_interface(&mut info, IN6_PKTINFO_INTERFACE_OFFSET, 7);
        let mut bytes = encode_messages(&[(IPPROTO_IPV6, IPV6_PKTINFO, &info)]);
        let address = "::ffff:127.3.4.5".parse().unwrap();
        assert!(replace_packet_info(&mut bytes, |info| {
            assert_eq!(info.interface, 7);
            Some(PacketInfo { address, interface: 0 })
        }));
        let IpAddr::V6(ip) = address else { unreachable!() };
        let expected = [&ip.octets()[..], &[0; 4]].concat();
        assert_eq!(collect_messages(&mut bytes)[0].2, expected);
    }
}
