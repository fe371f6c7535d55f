//! Replaces an address from the kernel with the visible address, which is the address that the
//! program must see. For example, the visible address of L is 127.0.0.1.

use std::net::SocketAddr;

use vipool::rewrite::sockaddr as sockaddr_bytes;
use vipool::rewrite::{HookedProcess, Outcome};

use crate::hooked_process;
use crate::sockaddr_buf::parse_inet;

/// Replaces the socket address in `name` with the visible address. Returns whether the address
/// changed.
///
/// - `is_truncated`: `name` contains only the beginning of the address. In this case `read_name`
///   returns the whole address, or `None` if the whole address is unknown.
/// - `ignores_other_end`: the other end of the socket cannot influence the visible address, so the
///   function does not call `read_other_end`.
/// - `read_other_end` returns the address of the other end of the socket.
///
/// This function is the fast path for IPv4 and IPv4-mapped addresses. `write_visible_slow_path`
/// handles truncated addresses, and the cases for which `fast_visible_ipv4` returns `None`. An IPv6
/// address that is neither truncated nor IPv4-mapped stays unchanged.
#[inline]
pub fn write_visible_name(
    process: &HookedProcess,
    name: &mut [u8],
    is_truncated: bool,
    ignores_other_end: bool,
    read_name: impl FnOnce() -> Option<SocketAddr>,
    read_other_end: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    if !is_truncated {
        let Some(ip) = sockaddr_bytes::ipv4_octets_mut(name) else { return false };
        let octets = *ip;
        if let Some(visible) = process.fast_visible_ipv4(octets.into(), ignores_other_end) {
            *ip = visible.octets();
            return *ip != octets;
        }
    }
    let read_other_end = || if ignores_other_end { None } else { read_other_end() };
    write_visible_slow_path(process, name, is_truncated, read_name, read_other_end)
}

#[cold]
fn write_visible_slow_path(
    process: &HookedProcess,
    name: &mut [u8],
    is_truncated: bool,
    read_name: impl FnOnce() -> Option<SocketAddr>,
    read_other_end: impl FnOnce() -> Option<SocketAddr>,
) -> bool {
    let address = if is_truncated { read_name() } else { parse_inet(name) };
    let Some(address) = address else { return false };
    let process = hooked_process::current().unwrap_or(process);
    let outcome = process.display_rewriter().visible_address(address, read_other_end);
    let Outcome::Rewritten(visible) = outcome else { return false };
    sockaddr_bytes::write(&visible, name);
    visible != address
}
