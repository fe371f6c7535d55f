//! Finds ports that a program cannot bind because another process holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use serde::Serialize;

use super::sockets::is_v6only;
use crate::system::proc_net::{SocketRow, all_pids, open_sockets};

/// A port that the program cannot bind, and the process that holds the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The row of docs/socket-matrix.md that applies.
    pub row: u8,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The address that the other process has bound.
    pub address: SocketAddr,
    /// The other process, if it can be determined.
    pub pid: Option<u32>,
    /// The name of that process.
    pub program: Option<String>,
    /// Whether the program's rule lists the port in `own-ports`.
    pub own_port: bool,
    /// A sentence that describes the effect.
    pub text: String,
    /// The socket's inode number in `/proc/PID/fd`.
    #[serde(skip)]
    pub inode: u64,
}

/// Returns `rows` without the sockets of process `pid` that have a descriptor in
/// `examined_descriptors`.
pub fn rows_of_other_processes(
    pid: Option<u32>,
    rows: &[SocketRow],
    examined_descriptors: &BTreeSet<i32>,
) -> Vec<SocketRow> {
    let examined_inodes: BTreeSet<u64> = match pid.map(open_sockets) {
        Some(Ok(sockets)) => {
            let is_examined = |descriptors: &[i32]| {
                descriptors.iter().any(|descriptor| examined_descriptors.contains(descriptor))
            };
            sockets
                .into_iter()
                .filter(|(_, descriptors)| is_examined(descriptors))
                .map(|(inode, _)| inode)
                .collect()
        }
        _ => BTreeSet::new(),
    };
    rows.iter().filter(|row| !examined_inodes.contains(&row.inode)).copied().collect()
}

/// Finds the listeners of other processes that make a bind of the program fail.
///
/// `other_rows` contains the sockets of other processes. `is_pool_address` returns whether an
/// address belongs to a pool. `is_own_port` returns whether the program's rule lists a port in
/// `own-ports`.
///
/// For a rewritten program, a listener of the host on 0.0.0.0 blocks the port in every session (row
/// 2). A listener on [::] that also accepts IPv4 blocks the port in the same way (row 29). The
/// result also contains IPv6-only listeners on [::], because the socket tables do not contain
/// IPV6_V6ONLY. [`add_holders`] removes these listeners.
///
/// For a program that is not rewritten, a listener on a session's address blocks the port on the
/// wildcard address.
pub fn find_conflicts(
    other_rows: &[SocketRow],
    is_rewritten: bool,
    is_pool_address: impl Fn(&SocketAddr) -> bool,
    is_own_port: impl Fn(u16) -> bool,
) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = Vec::new();
    for socket in other_rows.iter().filter(|row| row.is_listening && row.local.port() != 0) {
        let SocketRow { is_tcp, local, .. } = *socket;
        let port = local.port();
        let protocol = if is_tcp { "tcp" } else { "udp" };
        let (row, text) = match local {
            _ if is_rewritten && !local.ip().is_unspecified() => continue,
            SocketAddr::V4(_) if is_rewritten => (
                2,
                format!(
                    "a listener of the host has port {port} on every address: a bind in a session \
                     fails with EADDRINUSE"
                ),
            ),
            SocketAddr::V6(_) if is_rewritten => (
                29,
                format!(
                    "a listener of the host has port {port} on every address, including IPv4 \
                     unless it is for IPv6 only: a bind in a session fails with EADDRINUSE"
                ),
            ),
            _ if is_pool_address(&local) => (
                2,
                format!(
                    "a session has port {port} on its own address: a bind of this process to \
                     the wildcard address fails with EADDRINUSE"
                ),
            ),
            _ => continue,
        };
        let is_duplicate = |other: &Conflict| {
            other.protocol == protocol && other.address.port() == port && other.row == row
        };
        if conflicts.iter().any(is_duplicate) {
            continue;
        }
        conflicts.push(Conflict {
            row,
            protocol,
            address: local,
            pid: None,
            program: None,
            own_port: is_own_port(port),
            text,
            inode: socket.inode,
        });
    }
    // If listeners on 0.0.0.0 and on [::] have the same port, report only the conflict with the
    // listener on 0.0.0.0.
    let row_2_ports: BTreeSet<(&'static str, u16)> = conflicts
        .iter()
        .filter(|conflict| conflict.row == 2)
        .map(|conflict| (conflict.protocol, conflict.address.port()))
        .collect();
    conflicts.retain(|conflict| {
        conflict.row != 29 || !row_2_ports.contains(&(conflict.protocol, conflict.address.port()))
    });
    conflicts
        .sort_by_key(|conflict| (!conflict.own_port, conflict.address.port(), conflict.protocol));
    conflicts
}

/// Adds to each conflict the process that holds the port. Removes conflicts with IPv6-only
/// listeners.
pub fn add_holders(mut conflicts: Vec<Conflict>) -> Vec<Conflict> {
    if conflicts.is_empty() {
        return conflicts;
    }
    // For each inode: a process that has the socket open, and a descriptor of the socket.
    let mut holders: BTreeMap<u64, (u32, i32)> = BTreeMap::new();
    for pid in all_pids() {
        for (inode, descriptors) in open_sockets(pid).unwrap_or_default() {
            holders.extend(descriptors.first().map(|descriptor| (inode, (pid, *descriptor))));
        }
    }
    conflicts.retain_mut(|conflict| {
        let Some((pid, descriptor)) = holders.get(&conflict.inode) else { return true };
        conflict.pid = Some(*pid);
        conflict.program =
            fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned());
        // An IPv6-only listener does not block the port for IPv4.
        conflict.row != 29 || is_v6only(*pid, *descriptor) != Some(true)
    });
    conflicts
}
