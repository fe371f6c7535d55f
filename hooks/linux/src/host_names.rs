//! Decisions of the name lookup hooks. The functions test whether a name or an address belongs to
//! this host, and choose the replacement for an address of the host.

use std::net::IpAddr;

use vipool::rewrite::{HostNameAddresses, SystemView, sockaddr::as_ipv4};

use crate::hooked_process::ProcessRewriter;
use crate::node_name::NodeName;

/// Returns the address that replaces one of the host's own addresses in the result of a lookup.
pub fn session_address_for(
    session_addresses: HostNameAddresses,
    address: IpAddr,
) -> Option<IpAddr> {
    match (address, as_ipv4(address)) {
        (IpAddr::V4(_), _) => session_addresses.v4.map(IpAddr::V4),
        (IpAddr::V6(_), Some(_)) => session_addresses.v4.map(|v4| v4.to_ipv6_mapped().into()),
        (IpAddr::V6(_), None) => session_addresses.v6.map(IpAddr::V6),
    }
}

/// Returns whether the address belongs to this host or to a pool of its map.
pub fn is_host_or_pool_address(rewriter: &ProcessRewriter<'_>, address: IpAddr) -> bool {
    let ip = as_ipv4(address).map_or(address, IpAddr::V4);
    ip.is_loopback()
        || rewriter.system.is_host_address(ip)
        || rewriter.system.pool_kind(ip).is_some()
}

/// Returns whether `name` is the name of this host.
///
/// The host name itself matches. If `name` resolves to this host (`resolves_to_host`), the host
/// name with an added or removed domain also matches.
pub fn is_host_name(name: &[u8], resolves_to_host: bool) -> bool {
    let node_name = NodeName::read();
    let host = node_name.bytes();
    let name = name.strip_suffix(b".").unwrap_or(name);
    if host.is_empty() || name.is_empty() || name.eq_ignore_ascii_case(b"localhost") {
        return false;
    }
    let is_qualified = |name: &[u8]| name.contains(&b'.');
    name.eq_ignore_ascii_case(host)
        || resolves_to_host
            && !(is_qualified(name) && is_qualified(host))
            && first_label(name).eq_ignore_ascii_case(first_label(host))
}

fn first_label(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == b'.').next().unwrap_or_default()
}
