//! The kernel's tables of TCP and UDP sockets (proc_pid_net(5)), and who has them open
//! (proc_pid_fd(5)). Other users' processes are seen by root only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One row of such a table. A socket without a port is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whether it is TCP; else UDP.
    pub tcp: bool,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Whether it takes what comes from anywhere: TCP that listens, UDP that is not connected.
    pub listening: bool,
    /// What names the socket in `/proc/PID/fd`; 0 once no process has it any more.
    pub inode: u64,
}

/// The tables of the network namespace that a process is in (`self`, or a pid), one for each
/// protocol and family.
pub fn tables(process: &str) -> impl Iterator<Item = Vec<Row>> {
    let files = [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)];
    let of = format!("/proc/{process}/net/");
    files.into_iter().filter_map(move |(file, tcp)| {
        let text = fs::read_to_string(format!("{of}{file}")).ok()?;
        Some(text.lines().skip(1).filter_map(|line| row(line, tcp)).collect())
    })
}

/// The sockets of any kind that a process has open: inodes, each with its descriptors.
pub fn open_by(process: u32) -> io::Result<BTreeMap<u64, Vec<i32>>> {
    let mut sockets: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
    for file in fs::read_dir(format!("/proc/{process}/fd"))?.flatten() {
        let number = || file.file_name().to_str()?.parse().ok();
        // It may have been closed meanwhile.
        let Ok(link) = fs::read_link(file.path()) else { continue };
        let inode = link
            .to_str()
            .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let (Some(inode), Some(number)) = (inode, number()) {
            sockets.entry(inode).or_default().push(number);
        }
    }
    for numbers in sockets.values_mut() {
        numbers.sort_unstable();
    }
    Ok(sockets)
}

/// The pids of all processes.
pub fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn row(line: &str, tcp: bool) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    // TCP_LISTEN; an unconnected UDP socket is TCP_CLOSE.
    let listening = state == if tcp { "0A" } else { "07" };
    Some(Row { tcp, local, remote, listening, inode })
}

/// `0100007F:1F90`: words of the address in the machine's order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..ip.len() / 8)
        .map(|i| u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok())
        .flat_map(|word| match word {
            Some(word) => word.to_ne_bytes().map(Some).to_vec(),
            None => vec![None],
        })
        .collect();
    let ip: IpAddr = match words?.as_slice() {
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
    fn rows_of_proc_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0";
        let expected = Row {
            tcp: true,
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            listening: true,
            inode: 4242,
        };
        assert_eq!(row(line, true), Some(expected));
        assert_eq!(
            address("00000000000000000000000001000000:0050"),
            Some("[::1]:80".parse().unwrap())
        );
        for odd in ["", "x", "0100007F", "0100007:50", "zz00007F:0050"] {
            assert_eq!(address(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found_with_its_descriptor() {
        use std::os::fd::AsRawFd;

        let socket = std::net::UdpSocket::bind("127.94.0.2:0").unwrap();
        let at = socket.local_addr().unwrap();
        let row = tables("self").flatten().find(|row| row.local == at).unwrap();
        assert!(row.listening && !row.tcp);
        assert_eq!(open_by(std::process::id()).unwrap()[&row.inode], [socket.as_raw_fd()]);
    }
}
