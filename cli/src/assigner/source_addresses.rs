//! The source addresses that the kernel selects for the host itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use anyhow::bail;

/// Returns the source address that the kernel selects for a destination; `None` without a route.
///
/// For a UDP socket, connect(2) only looks up the route. The kernel sends no packet.
pub fn source_address(destination: IpAddr) -> Option<IpAddr> {
    let wildcard: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((wildcard, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns each destination with its source address.
pub fn source_addresses(destinations: &[IpAddr]) -> Vec<(IpAddr, Option<IpAddr>)> {
    destinations.iter().map(|destination| (*destination, source_address(*destination))).collect()
}

/// Checks that the kernel still selects the same source address for each destination.
///
/// # Errors
/// The host's own source address for a destination has changed.
pub fn check_sources_unchanged(sources_before: &[(IpAddr, Option<IpAddr>)]) -> anyhow::Result<()> {
    let format_source =
        |source: Option<IpAddr>| source.map_or("none".to_owned(), |ip| ip.to_string());
    for (destination, old_source) in sources_before {
        let new_source = source_address(*destination);
        if new_source != *old_source {
            bail!(
                "the pool's addresses would change the host's own source address towards \
                 {destination} from {} to {}",
                format_source(*old_source),
                format_source(new_source)
            );
        }
    }
    Ok(())
}
