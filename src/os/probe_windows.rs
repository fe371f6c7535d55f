//! Answers the questions of [`crate::map::Map::reap`] on Windows: whether an address has sockets,
//! and whether a process has exited.

#![allow(unsafe_code)]

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, GetExtendedUdpTable, MIB_TCP_STATE_TIME_WAIT, MIB_TCP6ROW, MIB_TCPROW_LH,
    MIB_UDP6ROW, MIB_UDPROW, TCP_TABLE_BASIC_ALL, UDP_TABLE_BASIC,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};

use super::process;
use crate::leader::Leader;

/// A snapshot of the bound addresses. The snapshot contains no processes:
/// [`SystemProbe::has_exited`] reads the current state of a process.
#[derive(Debug)]
pub struct SystemProbe {
    bound_addresses: HashSet<IpAddr>,
}

impl SystemProbe {
    /// Reads the sockets of this machine. Create a new probe for each call of `reap`, because a
    /// probe does not see sockets that are opened later.
    ///
    /// # Errors
    /// Fails if the tables of sockets cannot be read.
    pub fn new() -> io::Result<Self> {
        let mut bound_addresses = HashSet::new();
        let ipv4_address = |word: u32| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()));
        let ipv6_address = |bytes: [u8; 16]| {
            let ip = Ipv6Addr::from(bytes);
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        };
        visit_rows(true, AF_INET, |row: &MIB_TCPROW_LH| {
            // SAFETY: every member of the union is a number, so any bytes are valid.
            if unsafe { row.Anonymous.dwState } != MIB_TCP_STATE_TIME_WAIT as u32 {
                bound_addresses.insert(ipv4_address(row.dwLocalAddr));
            }
        })?;
        visit_rows(true, AF_INET6, |row: &MIB_TCP6ROW| {
            if row.State != MIB_TCP_STATE_TIME_WAIT {
                // SAFETY: every member of the union is valid for any bytes.
                bound_addresses.insert(ipv6_address(unsafe { row.LocalAddr.u.Byte }));
            }
        })?;
        visit_rows(false, AF_INET, |row: &MIB_UDPROW| {
            bound_addresses.insert(ipv4_address(row.dwLocalAddr));
        })?;
        visit_rows(false, AF_INET6, |row: &MIB_UDP6ROW| {
            // SAFETY: every member of the union is valid for any bytes.
            bound_addresses.insert(ipv6_address(unsafe { row.dwLocalAddr.u.Byte }));
        })?;
        Ok(Self { bound_addresses })
    }

    /// Returns whether a socket is bound to this address.
    #[must_use]
    pub fn has_sockets(&self, address: IpAddr) -> bool {
        self.bound_addresses.contains(&address)
    }

    /// Returns whether the session leader has exited.
    #[must_use]
    pub fn has_exited(&self, leader: &Leader) -> bool {
        process::has_exited(leader)
    }
}

/// Calls `visit` for every row of a socket table.
fn visit_rows<Row>(is_tcp: bool, family: u16, mut visit: impl FnMut(&Row)) -> io::Result<()> {
    let mut table = vec![0u32; 16 * 1024];
    loop {
        let mut size = (table.len() * 4) as u32;
        let buffer = table.as_mut_ptr().cast();
        // SAFETY: the system writes no more than `size` bytes.
        let status = unsafe {
            if is_tcp {
                GetExtendedTcpTable(buffer, &mut size, 0, family.into(), TCP_TABLE_BASIC_ALL, 0)
            } else {
                GetExtendedUdpTable(buffer, &mut size, 0, family.into(), UDP_TABLE_BASIC, 0)
            }
        };
        match status {
            NO_ERROR => break,
            // A socket can be opened between two calls, so the loop runs until the table fits.
            ERROR_INSUFFICIENT_BUFFER => table.resize(size as usize / 4 + 1024, 0),
            error => return Err(io::Error::from_raw_os_error(error as i32)),
        }
    }
    let max_row_count = (table.len() - 1) * 4 / size_of::<Row>();
    // SAFETY: the table is a `u32` count, directly followed by rows with the alignment of `u32`.
    // The slice contains at most as many rows as fit into the buffer.
    let rows = unsafe {
        let row_count = (table[0] as usize).min(max_row_count);
        std::slice::from_raw_parts(table.as_ptr().add(1).cast::<Row>(), row_count)
    };
    rows.iter().for_each(&mut visit);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_reports_bound_addresses() {
        let _listener = std::net::TcpListener::bind("127.77.2.3:0").unwrap();
        let probe = SystemProbe::new().unwrap();
        assert!(probe.has_sockets("127.77.2.3".parse().unwrap()));
        assert!(!probe.has_sockets("127.77.2.4".parse().unwrap()));
    }
}
