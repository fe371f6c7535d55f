//! Searches for sockets in the tables of the system (GetExtendedTcpTable, GetExtendedUdpTable).
//! This is the Windows version of `listeners.rs`.
//!
//! The system writes a table to a buffer on the stack. If a table does not fit, [`find`] accepts
//! only a match of the first candidate, because a missing row could match an earlier candidate.
//! Without such a match, the result is [`ListenerMatch::Unknown`], and the rewriter refuses the
//! call.

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use windows_sys::Win32::Foundation::NO_ERROR;
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, GetExtendedUdpTable, MIB_TCP6ROW, MIB_TCPROW_LH, MIB_UDP6ROW, MIB_UDPROW,
    TCP_TABLE_BASIC_LISTENER, UDP_TABLE_BASIC,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};

use super::socket::{ListenerMatch, Protocol, SEARCH_ERROR};

/// The number of `u32` elements in the table buffer, enough for 1600 IPv4 listeners. The `u32`
/// elements give the rows their alignment.
const TABLE_WORDS: usize = 8 * 1024;

/// Returns the index of the first candidate at which a socket listens or receives. See
/// [`SystemView::find_listener`](crate::rewrite::SystemView::find_listener). The UDP tables contain
/// no peers, so a connected socket counts like an unconnected one.
pub fn find(
    candidates: &[SocketAddr],
    protocol: Protocol,
    _source: Option<SocketAddr>,
) -> ListenerMatch {
    let mut first_index = None;
    let mut match_row = |local_address: SocketAddr| {
        let is_match = |candidate: &SocketAddr| {
            let is_equal = *candidate == local_address;
            // An IPv6 socket that is bound to the mapped form of an IPv4 candidate receives at the
            // candidate.
            let is_mapped = to_mapped(*candidate) == Some(local_address);
            is_equal || is_mapped
        };
        if let Some(index) = candidates.iter().position(is_match) {
            first_index = Some(first_index.map_or(index, |lowest: usize| lowest.min(index)));
        }
    };
    let has_ipv4_candidate = candidates.iter().any(SocketAddr::is_ipv4);
    let is_complete = (!has_ipv4_candidate || visit_v4_table(protocol, &mut match_row))
        && visit_v6_table(protocol, &mut match_row);
    match first_index {
        // A row that the system did not return can match an earlier candidate. Without the whole
        // table, only a match at index 0 is certain.
        Some(index) if is_complete || index == 0 => ListenerMatch::Index(index),
        None if is_complete => ListenerMatch::NotFound,
        _ => ListenerMatch::Unknown { error: SEARCH_ERROR },
    }
}

fn to_mapped(address: SocketAddr) -> Option<SocketAddr> {
    match address {
        SocketAddr::V4(ipv4) => {
            Some(SocketAddr::new(ipv4.ip().to_ipv6_mapped().into(), ipv4.port()))
        }
        SocketAddr::V6(_) => None,
    }
}

/// Returns the port in a word of a table: the low half of the word contains the port in network
/// byte order.
fn decode_port(word: u32) -> u16 {
    u16::from_be(word as u16)
}

fn v4_address(address: u32, port_word: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address.to_ne_bytes())), decode_port(port_word))
}

fn v6_address(address: [u8; 16], port_word: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), decode_port(port_word))
}

/// Calls `visit` with the local address of every IPv4 socket that listens or receives. Returns
/// false if the system did not return the whole table.
fn visit_v4_table(protocol: Protocol, visit: &mut impl FnMut(SocketAddr)) -> bool {
    match protocol {
        Protocol::Tcp => visit_table(protocol, AF_INET, |row: &MIB_TCPROW_LH| {
            visit(v4_address(row.dwLocalAddr, row.dwLocalPort));
        }),
        Protocol::Udp => visit_table(protocol, AF_INET, |row: &MIB_UDPROW| {
            visit(v4_address(row.dwLocalAddr, row.dwLocalPort));
        }),
        // Windows has no UDP-Lite.
        Protocol::UdpLite | Protocol::Other => false,
    }
}

/// Calls `visit` with the local address of every IPv6 socket that listens or receives. Returns
/// false if the system did not return the whole table.
fn visit_v6_table(protocol: Protocol, visit: &mut impl FnMut(SocketAddr)) -> bool {
    match protocol {
        Protocol::Tcp => visit_table(protocol, AF_INET6, |row: &MIB_TCP6ROW| {
            // SAFETY: every member of the union is valid for any bytes.
            visit(v6_address(unsafe { row.LocalAddr.u.Byte }, row.dwLocalPort));
        }),
        Protocol::Udp => visit_table(protocol, AF_INET6, |row: &MIB_UDP6ROW| {
            // SAFETY: every member of the union is valid for any bytes.
            visit(v6_address(unsafe { row.dwLocalAddr.u.Byte }, row.dwLocalPort));
        }),
        // Windows has no UDP-Lite.
        Protocol::UdpLite | Protocol::Other => false,
    }
}

/// A row of a table that the system returns.
///
/// # Safety
/// Every byte pattern must be a valid value of the type.
unsafe trait TableRow {}

// SAFETY: the structure has integers only.
unsafe impl TableRow for MIB_TCPROW_LH {}
// SAFETY: the structure has integers only.
unsafe impl TableRow for MIB_UDPROW {}
// SAFETY: the structure has integers and bytes only.
unsafe impl TableRow for MIB_TCP6ROW {}
// SAFETY: the structure has integers and bytes only.
unsafe impl TableRow for MIB_UDP6ROW {}

/// Calls `visit` for every row of a table. Returns false if the system did not return the whole
/// table.
fn visit_table<Row: TableRow>(
    protocol: Protocol,
    family: u16,
    mut visit: impl FnMut(&Row),
) -> bool {
    let mut table = [0u32; TABLE_WORDS];
    let mut size = size_of_val(&table) as u32;
    let buffer = table.as_mut_ptr().cast();
    // SAFETY: the system writes no more than `size` bytes.
    let status = unsafe {
        match protocol {
            Protocol::Tcp => GetExtendedTcpTable(
                buffer,
                &mut size,
                0,
                family.into(),
                TCP_TABLE_BASIC_LISTENER,
                0,
            ),
            _ => GetExtendedUdpTable(buffer, &mut size, 0, family.into(), UDP_TABLE_BASIC, 0),
        }
    };
    if status != NO_ERROR {
        return false;
    }
    let max_row_count = (size_of_val(&table) - size_of::<u32>()) / size_of::<Row>();
    const { assert!(align_of::<Row>() <= align_of::<u32>()) };
    // SAFETY: the table is a `u32` count, directly followed by rows with the alignment of `u32`.
    // The slice contains at most as many rows as fit into the buffer. The whole buffer is
    // initialized, and any bytes are valid rows.
    let rows = unsafe {
        let count = (table[0] as usize).min(max_row_count);
        std::slice::from_raw_parts(table.as_ptr().add(1).cast::<Row>(), count)
    };
    rows.iter().for_each(&mut visit);
    true
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn first_candidate_with_a_listener_is_found() {
        let listener = TcpListener::bind("127.77.1.2:0").unwrap();
        let bound_tcp = listener.local_addr().unwrap();
        let unbound_address = SocketAddr::new([127, 77, 1, 3].into(), bound_tcp.port());
        assert_eq!(
            find(&[unbound_address, bound_tcp], Protocol::Tcp, None),
            ListenerMatch::Index(1)
        );
        assert_eq!(find(&[unbound_address], Protocol::Tcp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[bound_tcp], Protocol::Udp, None), ListenerMatch::NotFound);
        let wildcard_listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let wildcard_port = wildcard_listener.local_addr().unwrap().port();
        let candidate = SocketAddr::new([127, 77, 1, 3].into(), wildcard_port);
        assert_eq!(find(&[candidate], Protocol::Tcp, None), ListenerMatch::NotFound);
        // Wine binds every UDP socket to the wildcard address, so only check that the search works.
        let udp_socket = UdpSocket::bind("127.77.1.2:0").unwrap();
        let bound_udp = udp_socket.local_addr().unwrap();
        let unknown_match = ListenerMatch::Unknown { error: SEARCH_ERROR };
        assert_ne!(find(&[bound_udp], Protocol::Udp, None), unknown_match);
        assert_eq!(find(&[bound_tcp], Protocol::Other, None), unknown_match);
    }
}
