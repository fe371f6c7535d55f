//! Answers the questions of [`crate::map::Map::reap`] on Linux: whether an address has sockets, and
//! whether a process has exited.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::process;
use crate::leader::Leader;

/// The files with the sockets of this network namespace, one socket per line (proc_pid_net(5)).
const SOCKET_TABLES: [&str; 8] =
    ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"];
/// `TCP_TIME_WAIT` of the kernel's `tcp_states.h`. No process holds a socket in this state.
const TCP_TIME_WAIT: &str = "06";

/// A snapshot of the bound addresses. The snapshot contains no processes:
/// [`SystemProbe::has_exited`] reads the current state of a process.
#[derive(Debug)]
pub struct SystemProbe {
    bound_addresses: HashSet<IpAddr>,
    pid_namespace: u64,
}

impl SystemProbe {
    /// Reads the sockets of this network namespace. Create a new probe for each call of `reap`,
    /// because a probe does not see sockets that are opened later.
    ///
    /// # Errors
    /// Fails if /proc cannot be read.
    pub fn new() -> io::Result<Self> {
        let mut bound_addresses = HashSet::new();
        for file in SOCKET_TABLES {
            match std::fs::read_to_string(format!("/proc/self/net/{file}")) {
                Ok(table) => {
                    bound_addresses.extend(table.lines().skip(1).filter_map(local_address))
                }
                // This kernel does not have the protocol.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            bound_addresses,
            pid_namespace: process::identify(std::process::id())?.pid_namespace,
        })
    }

    /// Returns whether a socket is bound to this address.
    #[must_use]
    pub fn has_sockets(&self, address: IpAddr) -> bool {
        self.bound_addresses.contains(&address)
    }

    /// Returns whether the session leader has exited. Returns false if the leader was identified in
    /// another process id namespace, because its process id has another meaning here.
    #[must_use]
    pub fn has_exited(&self, leader: &Leader) -> bool {
        process::has_exited(leader, self.pid_namespace)
    }
}

/// Returns the local address in a line of a socket table, or `None` for a socket in the state
/// TIME_WAIT. The second column contains the address as hexadecimal words in the byte order of the
/// machine.
fn local_address(line: &str) -> Option<IpAddr> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (address, _) = columns.next()?.split_once(':')?;
    if columns.nth(1)? == TCP_TIME_WAIT {
        return None;
    }
    let parse_word =
        |index: usize| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok();
    if address.len() == 8 {
        return Some(Ipv4Addr::from(parse_word(0)?.to_ne_bytes()).into());
    }
    let mut bytes = [0; 16];
    for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&parse_word(index)?.to_ne_bytes());
    }
    // A socket with a mapped IPv6 address uses the IPv4 address.
    Some(Ipv6Addr::from(bytes).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn probe_reports_bound_addresses() {
        // The addresses depend on the process id, because tests run in parallel.
        let [.., high_byte, low_byte] = std::process::id().to_be_bytes();
        let address = |last_octet| Ipv4Addr::new(127, 60 | high_byte & 3, low_byte, last_octet);
        let ipv4_listener = TcpListener::bind((address(1), 0)).unwrap();
        let _udp_socket = UdpSocket::bind((address(2), 0)).unwrap();
        let mapped_listener = TcpListener::bind((address(3).to_ipv6_mapped(), 0)).unwrap();
        let probe = SystemProbe::new().unwrap();
        for last_octet in [1, 2, 3] {
            assert!(probe.has_sockets(address(last_octet).into()), "{last_octet}");
        }
        assert!(!probe.has_sockets(address(4).into()));
        drop((ipv4_listener, mapped_listener));
        // A child that another test forks also holds the sockets until the child calls exec.
        let is_released = |last_octet| {
            let is_unbound =
                || !SystemProbe::new().unwrap().has_sockets(address(last_octet).into());
            let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
            (0..500).any(|_| is_unbound() || (pause(), false).1)
        };
        assert!(is_released(1) && is_released(3));
    }

    #[test]
    fn process_with_reused_pid_has_exited() {
        let probe = SystemProbe::new().unwrap();
        let this_process = process::identify(std::process::id()).unwrap();
        assert!(!probe.has_exited(&this_process));
        assert!(
            probe.has_exited(&Leader { start_time: this_process.start_time + 1, ..this_process })
        );
        let leader_in_other_namespace =
            Leader { start_time: 1, pid_namespace: this_process.pid_namespace + 1, ..this_process };
        assert!(
            !probe.has_exited(&leader_in_other_namespace),
            "a process of another namespace is unknown"
        );
    }
}
