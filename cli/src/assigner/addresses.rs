//! Adds pool addresses to interfaces, and removes pool addresses from interfaces.
//!
//! Both operations read the state file, so they also find the addresses that an interrupted run
//! added. The callers of [`remove_addresses`] keep the addresses of open sessions. If this host or
//! another host already uses an address, the assigner reports a conflict, and no session gets the
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::arp;
use super::netlink::{InterfaceAddress, Link, Netlink};
use super::state::{AssignedResources, AssignerState};

/// Maximum wait for IPv6 duplicate address detection. The kernel starts the detection within a
/// second, and the detection takes one second.
const DAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The result of [`add_addresses`].
#[derive(Debug, Default)]
pub struct AssignResult {
    /// Addresses that are on their interface and can be leased.
    pub usable_addresses: BTreeSet<InterfaceAddress>,
    /// Addresses that must not be leased, with the reason.
    pub conflict_reasons: BTreeMap<IpAddr, String>,
    /// Number of addresses that this run added.
    pub added_count: usize,
}

/// Adds `desired_addresses` to their interfaces.
///
/// If `should_probe` is true, this function first probes the network for other hosts that use one
/// of the addresses. The host's own source address for each of `destinations` must not change.
///
/// # Errors
/// The kernel reports an error, or the host's own source address would change. If a check of the
/// added addresses fails, this function removes the addresses that it added.
pub fn add_addresses(
    state: &mut AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
    should_probe: bool,
    destinations: &[IpAddr],
) -> anyhow::Result<AssignResult> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let links: BTreeMap<u32, Link> =
        netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
    let mut result = AssignResult::default();
    let (mut present_addresses, obsolete_addresses) =
        assigned_addresses(&mut netlink, state, desired_addresses)?;
    let interface_of: BTreeMap<IpAddr, u32> =
        desired_addresses.iter().map(|entry| (entry.address, entry.interface)).collect();
    // The subnet of these addresses is on another interface now, so the addresses move there too.
    let moved_addresses: Vec<InterfaceAddress> = obsolete_addresses
        .iter()
        .filter(|entry| interface_of.contains_key(&entry.address))
        .copied()
        .collect();
    delete_addresses(&mut netlink, &moved_addresses)?;

    let interface_name = |index: u32| links.get(&index).map_or("an interface", |link| &link.name);
    for (entry, _) in netlink.addresses()? {
        if interface_of.contains_key(&entry.address) && !present_addresses.contains(&entry) {
            let reason = format!(
                "this host already uses the address on {}",
                interface_name(entry.interface)
            );
            result.conflict_reasons.insert(entry.address, reason);
        }
    }
    if should_probe {
        for (address, mac) in probe_network(desired_addresses, &links)? {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            result
                .conflict_reasons
                .insert(address.into(), format!("{mac} uses the address on the network"));
        }
    }
    let missing_addresses: Vec<InterfaceAddress> = desired_addresses
        .iter()
        .filter(|entry| {
            !present_addresses.contains(entry)
                && !result.conflict_reasons.contains_key(&entry.address)
        })
        .copied()
        .collect();

    let sources_before = source_addresses(destinations);
    let assigned_before = state.assigned.clone();
    let intended_addresses = assigned_before
        .addresses
        .iter()
        .chain(&present_addresses)
        .chain(&missing_addresses)
        .copied()
        .collect();
    state.write(AssignedResources { addresses: intended_addresses, ..assigned_before.clone() })?;
    let progress = progress_bar(missing_addresses.len() as u64, "adding");
    let outcomes = netlink.add(&missing_addresses, |count| progress.set_position(count as u64))?;
    progress.finish_and_clear();
    let mut added_addresses = Vec::new();
    for (entry, outcome) in missing_addresses.iter().zip(outcomes) {
        match outcome {
            Ok(()) => added_addresses.push(*entry),
            Err(error) => {
                let reason = format!(
                    "cannot add the address to {}: {error}",
                    interface_name(entry.interface)
                );
                result.conflict_reasons.insert(entry.address, reason);
            }
        }
    }
    let check_result = wait_until_usable(&mut netlink, &added_addresses).and_then(|duplicates| {
        delete_addresses(&mut netlink, &duplicates)?;
        check_sources_unchanged(&sources_before)?;
        Ok(duplicates)
    });
    let duplicates = match check_result {
        Ok(duplicates) => duplicates,
        Err(error) => {
            delete_addresses(&mut netlink, &added_addresses)?;
            state.write(assigned_before)?;
            return Err(error.context("the added addresses were removed again"));
        }
    };
    for entry in &duplicates {
        let reason =
            format!("duplicate address detection failed on {}", interface_name(entry.interface));
        result.conflict_reasons.insert(entry.address, reason);
    }
    added_addresses.retain(|entry| !duplicates.contains(entry));
    result.added_count = added_addresses.len();
    announce(&added_addresses, &links);
    present_addresses.extend(&added_addresses);
    result.usable_addresses = present_addresses
        .into_iter()
        .filter(|entry| !result.conflict_reasons.contains_key(&entry.address))
        .collect();
    Ok(result)
}

/// Removes the addresses that any run of [`add_addresses`] added, except the addresses for which
/// `is_needed` returns true. Returns the number of removed addresses, and the kept addresses.
///
/// # Errors
/// The kernel reports an error.
pub fn remove_addresses(
    state: &mut AssignerState,
    is_needed: impl Fn(&InterfaceAddress) -> bool,
) -> anyhow::Result<(usize, BTreeSet<InterfaceAddress>)> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let (_, assigned) = assigned_addresses(&mut netlink, state, &BTreeSet::new())?;
    let (kept_addresses, removed_addresses): (BTreeSet<_>, BTreeSet<_>) =
        assigned.into_iter().partition(is_needed);
    delete_addresses(&mut netlink, &Vec::from_iter(removed_addresses.iter().copied()))?;
    state.write_subset(AssignedResources {
        addresses: kept_addresses.clone(),
        ..state.assigned.clone()
    })?;
    Ok((removed_addresses.len(), kept_addresses))
}

/// Returns the addresses that an assigner added and that are still on their interface. The first
/// set contains the desired addresses, the second set the obsolete addresses.
///
/// The state file identifies the addresses of both sets. Without the state file, the mark
/// (`netlink::POOL_ADDRESS_PROTOCOL`) identifies only the desired addresses, because an obsolete
/// address with the mark can belong to another map.
fn assigned_addresses(
    netlink: &mut Netlink,
    state: &AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
) -> io::Result<(BTreeSet<InterfaceAddress>, BTreeSet<InterfaceAddress>)> {
    let present = netlink.addresses()?;
    let is_recorded = |entry: &InterfaceAddress| state.assigned.addresses.contains(entry);
    let assigned = present.iter().filter(|(entry, address_state)| {
        address_state.is_pool_like
            && (is_recorded(entry) || desired_addresses.contains(entry) && address_state.is_marked)
    });
    Ok(assigned.map(|(entry, _)| *entry).partition(|entry| desired_addresses.contains(entry)))
}

fn delete_addresses(netlink: &mut Netlink, addresses: &[InterfaceAddress]) -> anyhow::Result<()> {
    let progress = progress_bar(addresses.len() as u64, "removing");
    let outcomes = netlink.delete(addresses, |count| progress.set_position(count as u64))?;
    progress.finish_and_clear();
    for (entry, outcome) in addresses.iter().zip(outcomes) {
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => {
                return Err(error).context(format!("cannot remove {}", entry.address));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Probes the IPv4 addresses on all interfaces concurrently. Returns each address in use with the
/// Ethernet address of the host that uses it.
fn probe_network(
    desired_addresses: &BTreeSet<InterfaceAddress>,
    links: &BTreeMap<u32, Link>,
) -> anyhow::Result<BTreeMap<Ipv4Addr, arp::MacAddress>> {
    let mut addresses_by_link: BTreeMap<u32, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for entry in desired_addresses {
        if let IpAddr::V4(address) = entry.address {
            addresses_by_link.entry(entry.interface).or_default().insert(address);
        }
    }
    addresses_by_link.retain(|index, _| {
        links.get(index).is_some_and(|link| link.is_up && link.arp_mac.is_some())
    });
    let host_macs: BTreeSet<arp::MacAddress> =
        links.values().filter_map(|link| link.arp_mac).collect();
    let address_count: usize = addresses_by_link.values().map(BTreeSet::len).sum();
    let progress =
        progress_bar(1000, &format!("probing the network for {address_count} addresses"));
    let conflicts = thread::scope(|scope| {
        let threads: Vec<_> = addresses_by_link
            .iter()
            .map(|(index, addresses)| {
                let (link, progress, host_macs) = (&links[index], &progress, &host_macs);
                let source_mac = link.arp_mac.expect("links without ARP were removed above");
                scope.spawn(move || {
                    arp::probe(*index, source_mac, host_macs, addresses, |fraction| {
                        progress.set_position((fraction * 1000.0) as u64)
                    })
                    .with_context(|| format!("cannot send ARP on {}", link.name))
                })
            })
            .collect();
        let mut conflicts = BTreeMap::new();
        for thread in threads {
            conflicts.extend(thread.join().expect("probing does not panic")?);
        }
        anyhow::Ok(conflicts)
    });
    progress.finish_and_clear();
    conflicts
}

/// Announces the addresses twice (RFC 5227, section 2.3). Ignores failures, because old entries in
/// the ARP caches of the neighbours expire without an announcement.
fn announce(addresses: &[InterfaceAddress], links: &BTreeMap<u32, Link>) {
    for round in 0..2 {
        if round > 0 && addresses.iter().any(|entry| entry.address.is_ipv4()) {
            thread::sleep(Duration::from_secs(2));
        }
        for (index, link) in links {
            let Some(source_mac) = link.arp_mac.filter(|_| link.is_up) else { continue };
            let link_addresses = addresses.iter().filter(|entry| entry.interface == *index);
            let _ = arp::announce(
                *index,
                source_mac,
                link_addresses.filter_map(|entry| match entry.address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
            );
        }
    }
}

/// Waits until duplicate address detection has finished, and checks that every address can be
/// bound. Returns the IPv6 addresses that another host uses.
fn wait_until_usable(
    netlink: &mut Netlink,
    addresses: &[InterfaceAddress],
) -> anyhow::Result<Vec<InterfaceAddress>> {
    let deadline = Instant::now() + DAD_TIMEOUT;
    loop {
        let present = netlink.addresses()?;
        let state_of = |entry: &&InterfaceAddress| present.get(entry);
        let tentative_entry = addresses.iter().find(|entry| {
            state_of(entry).is_some_and(|state| state.is_tentative && !state.is_duplicate)
        });
        match tentative_entry {
            Some(entry) if Instant::now() >= deadline => bail!(
                "{} is not usable after {} seconds (check the carrier of its interface with \
                 'ip link')",
                entry.address,
                DAD_TIMEOUT.as_secs()
            ),
            Some(_) => thread::sleep(Duration::from_millis(100)),
            None => {
                let duplicates: Vec<InterfaceAddress> = addresses
                    .iter()
                    .filter(|entry| state_of(entry).is_none_or(|state| state.is_duplicate))
                    .copied()
                    .collect();
                for entry in addresses.iter().filter(|entry| !duplicates.contains(entry)) {
                    UdpSocket::bind((entry.address, 0)).with_context(|| {
                        format!("{} was added but cannot be bound", entry.address)
                    })?;
                }
                return Ok(duplicates);
            }
        }
    }
}

/// Returns the source address that the kernel selects for a destination.
///
/// For a UDP socket, connect(2) only looks up the route. The kernel sends no packet.
fn source_address(destination: IpAddr) -> Option<IpAddr> {
    let wildcard: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((wildcard, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns each destination with its source address.
fn source_addresses(destinations: &[IpAddr]) -> Vec<(IpAddr, Option<IpAddr>)> {
    destinations.iter().map(|destination| (*destination, source_address(*destination))).collect()
}

/// Checks that the kernel still selects the same source address for each destination.
///
/// # Errors
/// The host's own source address for a destination has changed.
fn check_sources_unchanged(sources_before: &[(IpAddr, Option<IpAddr>)]) -> anyhow::Result<()> {
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

/// Returns a progress bar, which is drawn only on a terminal.
fn progress_bar(length: u64, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%");
    ProgressBar::new(length)
        .with_style(style.expect("a constant template"))
        .with_message(message.to_owned())
}

#[cfg(test)]
mod tests;
