//! Searches for sockets in the tables of the system (GetExtendedTcpTable, GetExtendedUdpTable).
//!
//! The system writes a table to a buffer on the stack. If the table does not fit, the result of the
//! search is [`ListenerMatch::Unknown`], and the rewriter passes the call unchanged.

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use windows_sys::Win32::Foundation::NO_ERROR;
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, GetExtendedUdpTable, MIB_TCP6ROW, MIB_TCPROW_LH, MIB_UDP6ROW, MIB_UDPROW,
    TCP_TABLE_BASIC_LISTENER, UDP_TABLE_BASIC,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};

use super::socket::{ListenerMatch, Protocol};

/// The length of the table buffer, enough for 1600 IPv4 listeners. The `u32` elements give the rows
/// their alignment.
const WORDS: usize = 8 * 1024;

/// Returns the index of the first address in `wanted` that has a socket of its own. See
/// [`SystemView::find_listener`](crate::rewrite::SystemView::find_listener). The UDP tables contain
/// no peers, so a connected socket counts like an unconnected one.
pub fn find(wanted: &[SocketAddr], protocol: Protocol, _from: Option<SocketAddr>) -> ListenerMatch {
    let mut first = None;
    let mut look = |local: SocketAddr| {
        let meets = |wanted: &SocketAddr| {
            let exact = *wanted == local;
            // An IPv6 socket that is bound to the mapped address also receives IPv4.
            let mapped = as_mapped(*wanted) == Some(local);
            exact || mapped
        };
        if let Some(place) = wanted.iter().position(meets) {
            first = Some(first.map_or(place, |best: usize| best.min(place)));
        }
    };
    let any_v4 = wanted.iter().any(SocketAddr::is_ipv4);
    let whole = (!any_v4 || scan_v4(protocol, &mut look)) && scan_v6(protocol, &mut look);
    match first {
        // An unread row can match an earlier address, so only a match at index 0 is certain without
        // the whole table.
        Some(place) if whole || place == 0 => ListenerMatch::Index(place),
        None if whole => ListenerMatch::NotFound,
        _ => ListenerMatch::Unknown,
    }
}

fn as_mapped(address: SocketAddr) -> Option<SocketAddr> {
    match address {
        SocketAddr::V4(v4) => Some(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())),
        SocketAddr::V6(_) => None,
    }
}

/// Converts a port of a table: the low half of the word contains the port in network order.
fn port(word: u32) -> u16 {
    u16::from_be(word as u16)
}

fn v4(address: u32, port_word: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address.to_ne_bytes())), port(port_word))
}

fn v6(address: [u8; 16], port_word: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), port(port_word))
}

fn scan_v4(protocol: Protocol, look: &mut impl FnMut(SocketAddr)) -> bool {
    match protocol {
        Protocol::Tcp => scan(protocol, AF_INET, |row: &MIB_TCPROW_LH| {
            look(v4(row.dwLocalAddr, row.dwLocalPort));
        }),
        Protocol::Udp => scan(protocol, AF_INET, |row: &MIB_UDPROW| {
            look(v4(row.dwLocalAddr, row.dwLocalPort));
        }),
        Protocol::Other => false,
    }
}

fn scan_v6(protocol: Protocol, look: &mut impl FnMut(SocketAddr)) -> bool {
    match protocol {
        Protocol::Tcp => scan(protocol, AF_INET6, |row: &MIB_TCP6ROW| {
            // SAFETY: every member of the union is valid for any bytes.
            look(v6(unsafe { row.LocalAddr.u.Byte }, row.dwLocalPort));
        }),
        Protocol::Udp => scan(protocol, AF_INET6, |row: &MIB_UDP6ROW| {
            // SAFETY: see above.
            look(v6(unsafe { row.dwLocalAddr.u.Byte }, row.dwLocalPort));
        }),
        Protocol::Other => false,
    }
}

/// Calls `each` for every row of a table. Returns false if the system did not return the whole
/// table.
fn scan<Row>(protocol: Protocol, family: u16, mut each: impl FnMut(&Row)) -> bool {
    let mut table = [0u32; WORDS];
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
    let room = (size_of_val(&table) - size_of::<u32>()) / size_of::<Row>();
    // SAFETY: the table is a count, directly followed by rows of whole words. The slice contains at
    // most as many rows as fit.
    let rows = unsafe {
        let count = (table[0] as usize).min(room);
        std::slice::from_raw_parts(table.as_ptr().add(1).cast::<Row>(), count)
    };
    rows.iter().for_each(&mut each);
    true
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_first_of_the_wanted_is_found_and_no_wildcard() {
        let listener = TcpListener::bind("127.77.1.2:0").unwrap();
        let there = listener.local_addr().unwrap();
        let not_there = SocketAddr::new([127, 77, 1, 3].into(), there.port());
        assert_eq!(find(&[not_there, there], Protocol::Tcp, None), ListenerMatch::Index(1));
        assert_eq!(find(&[not_there], Protocol::Tcp, None), ListenerMatch::NotFound);
        assert_eq!(find(&[there], Protocol::Udp, None), ListenerMatch::NotFound);
        let wildcard = TcpListener::bind("0.0.0.0:0").unwrap();
        let here = SocketAddr::new([127, 77, 1, 3].into(), wildcard.local_addr().unwrap().port());
        assert_eq!(find(&[here], Protocol::Tcp, None), ListenerMatch::NotFound);
        // Wine binds every UDP socket to the wildcard address, so only check that the search works.
        let datagrams = UdpSocket::bind("127.77.1.2:0").unwrap();
        let bound = datagrams.local_addr().unwrap();
        assert_ne!(find(&[bound], Protocol::Udp, None), ListenerMatch::Unknown);
        assert_eq!(find(&[there], Protocol::Other, None), ListenerMatch::Unknown);
    }
}
