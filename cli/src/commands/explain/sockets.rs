//! Lists the TCP and UDP sockets of a process, with the addresses and options from the kernel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{getpeername, getsockname, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::system::proc_net::{SocketRow, open_sockets};

/// A TCP or UDP socket of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub descriptors: Vec<i32>,
    pub is_tcp: bool,
    /// The local address; unspecified with port 0 if the socket is not bound.
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    /// Whether the socket is a TCP listener.
    pub is_listening: bool,
    /// The option `IPV6_V6ONLY`; false if it is unknown.
    pub is_v6only: bool,
    /// Whether `SO_REUSEADDR`, `SO_REUSEPORT` or `SO_BROADCAST` is set (row 26 of
    /// docs/socket-matrix.md). If this is unknown, true for a UDP socket.
    pub can_share_port: bool,
}

/// Returns the TCP and UDP sockets of a process, and the number of sockets whose kind is unknown
/// because the caller may not examine them.
///
/// `rows` contains the socket tables of the process's network namespace.
///
/// # Errors
/// The caller may not list the descriptors of the process.
pub fn sockets_of_process(pid: u32, rows: &[SocketRow]) -> std::io::Result<(Vec<Socket>, usize)> {
    let rows: BTreeMap<u64, &SocketRow> = rows.iter().map(|row| (row.inode, row)).collect();
    let pidfd = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let mut sockets = Vec::new();
    let mut unknown_socket_count = 0;
    for (inode, descriptors) in open_sockets(pid)? {
        let first_descriptor = *descriptors.first().unwrap_or(&-1);
        let duplicate_fd = pidfd
            .as_ref()
            .and_then(|pidfd| pidfd_getfd(pidfd, first_descriptor, PidfdGetfdFlags::empty()).ok());
        match (duplicate_fd, rows.get(&inode)) {
            (Some(duplicate_fd), _) => sockets.extend(from_descriptor(&duplicate_fd, descriptors)),
            (None, Some(row)) => sockets.push(from_row(row, descriptors)),
            (None, None) => unknown_socket_count += 1,
        }
    }
    sockets.sort_by_key(|socket| socket.descriptors.clone());
    Ok((sockets, unknown_socket_count))
}

/// Returns whether a process's socket is for IPv6 only. Returns `None` for an IPv4 socket, and if
/// the caller may not examine the socket.
pub fn is_v6only(pid: u32, descriptor: i32) -> Option<bool> {
    let pidfd = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
    let duplicate_fd = pidfd_getfd(pidfd, descriptor, PidfdGetfdFlags::empty()).ok()?;
    sockopt::ipv6_v6only(duplicate_fd).ok()
}

/// Examines a duplicate of the process's descriptor. Returns `None` if the socket is neither TCP
/// nor UDP.
fn from_descriptor(socket: &OwnedFd, descriptors: Vec<i32>) -> Option<Socket> {
    use rustix::net::ipproto::{MPTCP, TCP, UDP, UDPLITE};

    let protocol = sockopt::socket_protocol(socket).ok()??;
    if ![TCP, MPTCP, UDP, UDPLITE].contains(&protocol) {
        return None;
    }
    let local = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
    let peer = getpeername(socket).ok().flatten();
    let is_set = |option: rustix::io::Result<bool>| option.unwrap_or(false);
    Some(Socket {
        descriptors,
        is_tcp: protocol == TCP || protocol == MPTCP,
        local,
        peer: peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
        is_listening: is_set(sockopt::socket_acceptconn(socket)),
        is_v6only: is_set(sockopt::ipv6_v6only(socket)),
        can_share_port: is_set(sockopt::socket_reuseaddr(socket))
            || is_set(sockopt::socket_reuseport(socket))
            || is_set(sockopt::socket_broadcast(socket)),
    })
}

/// Describes a socket by its row of the socket tables, for a descriptor that the caller may not
/// duplicate.
fn from_row(row: &SocketRow, descriptors: Vec<i32>) -> Socket {
    Socket {
        descriptors,
        is_tcp: row.is_tcp,
        local: row.local,
        peer: Some(row.remote).filter(|peer| peer.port() != 0),
        is_listening: row.is_tcp && row.is_listening,
        is_v6only: false,
        // The socket tables do not contain SO_REUSEADDR, SO_REUSEPORT and SO_BROADCAST. Assume that
        // one of these options is set on a UDP socket: such an option is the usual reason why a
        // wildcard bind of UDP was not rewritten.
        can_share_port: !row.is_tcp,
    }
}
