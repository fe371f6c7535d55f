//! Reads the kernel's tables of TCP and UDP sockets (proc_pid_net(5)), and finds the processes that
//! have the sockets open (proc_pid_fd(5)). Only root can read the descriptors of other users'
//! processes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One row of a socket table. The tables contain only sockets that have a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// Whether the socket is TCP; otherwise it is UDP.
    pub is_tcp: bool,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Whether the socket accepts connections or datagrams from any peer: it is a TCP listener or
    /// an unconnected UDP socket.
    pub is_listening: bool,
    /// The socket's inode number in `/proc/PID/fd`; 0 if no process has the socket open any more.
    pub inode: u64,
}

/// Reads the socket tables of a process's network namespace. There is one table per protocol and
/// family.
///
/// `process` is a pid or `self`.
pub fn socket_tables(process: &str) -> impl Iterator<Item = Vec<SocketRow>> {
    let files = [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)];
    let directory = format!("/proc/{process}/net/");
    files.into_iter().filter_map(move |(table_name, is_tcp)| {
        let text = fs::read_to_string(format!("{directory}{table_name}")).ok()?;
        Some(text.lines().skip(1).filter_map(|line| parse_row(line, is_tcp)).collect())
    })
}

/// Returns the open sockets of a process, of any kind.
///
/// The result maps the inode number of each socket to the socket's descriptors, in ascending order.
///
/// # Errors
/// The process does not exist, or the caller may not read its descriptors.
pub fn open_sockets(pid: u32) -> io::Result<BTreeMap<u64, Vec<i32>>> {
    let mut sockets: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let descriptor = || entry.file_name().to_str()?.parse().ok();
        // The process may have closed the descriptor after the directory was read.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let inode = link
            .to_str()
            .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let (Some(inode), Some(descriptor)) = (inode, descriptor()) {
            sockets.entry(inode).or_default().push(descriptor);
        }
    }
    for descriptors in sockets.values_mut() {
        descriptors.sort_unstable();
    }
    Ok(sockets)
}

/// Returns the pids of all processes.
pub fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parse_row(line: &str, is_tcp: bool) -> Option<SocketRow> {
    let mut fields = line.split_whitespace().skip(1);
    let local = parse_address(fields.next()?)?;
    let remote = parse_address(fields.next()?)?;
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    // 0A is TCP_LISTEN. An unconnected UDP socket is in state 07, TCP_CLOSE.
    let is_listening = state == if is_tcp { "0A" } else { "07" };
    Some(SocketRow { is_tcp, local, remote, is_listening, inode })
}

/// Parses an address and a port in hexadecimal, with a colon between them.
///
/// The address is a sequence of 32-bit words in the machine's byte order. On a little-endian
/// machine, `0100007F:1F90` is 127.0.0.1:8080.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let bytes: Option<Vec<u8>> = (0..ip.len() / 8)
        .map(|index| u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok())
        .flat_map(|word| match word {
            Some(word) => word.to_ne_bytes().map(Some).to_vec(),
            None => vec![None],
        })
        .collect();
    let ip: IpAddr = match bytes?.as_slice() {
        bytes if bytes.len() == 4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        bytes => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_are_parsed_and_malformed_addresses_rejected() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0";
        let expected = SocketRow {
            is_tcp: true,
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            is_listening: true,
            inode: 4242,
        };
        assert_eq!(parse_row(line, true), Some(expected));
        assert_eq!(
            parse_address("00000000000000000000000001000000:0050"),
            Some("[::1]:80".parse().unwrap())
        );
        for malformed_address in ["", "x", "0100007F", "0100007:50", "zz00007F:0050"] {
            assert_eq!(parse_address(malformed_address), None, "{malformed_address}");
        }
    }

    #[test]
    fn own_socket_is_found_with_its_descriptor() {
        use std::os::fd::AsRawFd;

        let socket = std::net::UdpSocket::bind("127.94.0.2:0").unwrap();
        let address = socket.local_addr().unwrap();
        let row = socket_tables("self").flatten().find(|row| row.local == address).unwrap();
        assert!(row.is_listening && !row.is_tcp);
        assert_eq!(open_sockets(std::process::id()).unwrap()[&row.inode], [socket.as_raw_fd()]);
    }
}
