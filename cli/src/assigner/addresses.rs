//! Adds pool addresses to interfaces, and removes pool addresses from interfaces.
//!
//! Both operations read the state file, so they also find the addresses that an interrupted run
//! added. The caller of [`remove_addresses`] selects the addresses to keep, for example the
//! addresses of open sessions. If this host or another host already uses an address, the assigner
//! reports a conflict, and no session gets the address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::arp;
use super::netlink::{InterfaceAddress, Link, Netlink};
use super::source_addresses::{check_sources_unchanged, source_addresses};
use super::state::{AssignedResources, AssignerState};
use super::steps::StepTimer;
use crate::text::pluralize;

/// Maximum wait for IPv6 duplicate address detection. Normally, the detection ends within two
/// seconds: the kernel starts it within one second, and it takes one second.
const DAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The result of [`add_addresses`].
#[derive(Debug, Default)]
pub struct AssignResult {
    /// Addresses that are on their interface and can be leased.
    pub usable_addresses: BTreeSet<InterfaceAddress>,
    /// Addresses that must not be leased, with the reason.
    pub conflict_reasons: BTreeMap<IpAddr, String>,
    /// Addresses that this run added.
    pub added_addresses: Vec<InterfaceAddress>,
}

/// The desired addresses, compared with the addresses on the interfaces.
struct Comparison {
    /// Desired addresses that an assigner added before and that are still on their interface.
    present_addresses: BTreeSet<InterfaceAddress>,
    /// Desired addresses that an assigner added to another interface, when that interface had
    /// their subnet.
    moved_addresses: Vec<InterfaceAddress>,
    /// Desired addresses to add.
    missing_addresses: Vec<InterfaceAddress>,
    /// Desired addresses that the host itself uses, with the reason.
    conflict_reasons: BTreeMap<IpAddr, String>,
}

/// Predicts the result of [`add_addresses`]. Changes nothing and does not probe other hosts.
///
/// # Errors
/// The kernel reports an error.
pub fn preview_addition(
    state: &AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
) -> anyhow::Result<AssignResult> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let links = links_by_index(&mut netlink)?;
    let Comparison { mut present_addresses, missing_addresses, conflict_reasons, .. } =
        compare(&mut netlink, state, desired_addresses, &links)?;
    present_addresses.extend(&missing_addresses);
    Ok(AssignResult {
        usable_addresses: present_addresses,
        conflict_reasons,
        added_addresses: missing_addresses,
    })
}

/// Adds `desired_addresses` to their interfaces.
///
/// If `should_probe` is true, this function first probes the network for other hosts that use one
/// of the addresses to add. At the end, it checks that the host's own source address for each of
/// `destinations` is still the same.
///
/// # Errors
/// The kernel reports an error, the state file cannot be written, or the host's own source address
/// would change. If a check of the added addresses fails, this function removes the addresses that
/// it added.
pub fn add_addresses(
    state: &mut AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
    should_probe: bool,
    destinations: &[IpAddr],
    timer: &mut StepTimer,
) -> anyhow::Result<AssignResult> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let links = links_by_index(&mut netlink)?;
    let Comparison {
        mut present_addresses,
        moved_addresses,
        mut missing_addresses,
        conflict_reasons,
    } = compare(&mut netlink, state, desired_addresses, &links)?;
    let mut result = AssignResult { conflict_reasons, ..AssignResult::default() };
    delete_addresses(&mut netlink, &moved_addresses)?;
    let interface_name = |index: u32| interface_name(&links, index);
    if should_probe && !missing_addresses.is_empty() {
        for (address, mac) in probe_network(&missing_addresses, &links)? {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            result
                .conflict_reasons
                .insert(address.into(), format!("{mac} uses the address on the network"));
        }
        timer.end_step(format!(
            "probed the network: {}",
            format_address_count(missing_addresses.len())
        ));
        missing_addresses.retain(|entry| !result.conflict_reasons.contains_key(&entry.address));
    }

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
    timer.end_step(format!(
        "added to the interfaces: {}",
        format_address_count(added_addresses.len())
    ));
    if !added_addresses.is_empty() {
        announce(&added_addresses, &links);
        timer.end_step("announced the added addresses");
    }
    present_addresses.extend(&added_addresses);
    result.added_addresses = added_addresses;
    result.usable_addresses = present_addresses
        .into_iter()
        .filter(|entry| !result.conflict_reasons.contains_key(&entry.address))
        .collect();
    Ok(result)
}

/// Compares `desired_addresses` with the addresses on the interfaces.
fn compare(
    netlink: &mut Netlink,
    state: &AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
    links: &BTreeMap<u32, Link>,
) -> io::Result<Comparison> {
    let (present_addresses, obsolete_addresses) =
        assigned_addresses(netlink, state, desired_addresses)?;
    let desired_ips: BTreeSet<IpAddr> =
        desired_addresses.iter().map(|entry| entry.address).collect();
    // The subnet of these addresses is on another interface now, so the addresses move there too.
    let moved_addresses: Vec<InterfaceAddress> = obsolete_addresses
        .into_iter()
        .filter(|entry| desired_ips.contains(&entry.address))
        .collect();
    let all_addresses = netlink.addresses()?;
    let conflicts = all_addresses.keys().filter(|entry| {
        desired_ips.contains(&entry.address)
            && !present_addresses.contains(entry)
            && !moved_addresses.contains(entry)
    });
    let conflict_reasons: BTreeMap<IpAddr, String> = conflicts
        .map(|entry| {
            let interface = interface_name(links, entry.interface);
            (entry.address, format!("this host already uses the address on {interface}"))
        })
        .collect();
    let is_missing = |entry: &&InterfaceAddress| {
        !present_addresses.contains(entry) && !conflict_reasons.contains_key(&entry.address)
    };
    let missing_addresses = desired_addresses.iter().filter(is_missing).copied().collect();
    Ok(Comparison { present_addresses, moved_addresses, missing_addresses, conflict_reasons })
}

fn links_by_index(netlink: &mut Netlink) -> io::Result<BTreeMap<u32, Link>> {
    Ok(netlink.links()?.into_iter().map(|link| (link.index, link)).collect())
}

fn interface_name(links: &BTreeMap<u32, Link>, index: u32) -> &str {
    links.get(&index).map_or("an interface", |link| &link.name)
}

/// Formats a number of addresses, such as "2 addresses".
pub fn format_address_count(number: usize) -> String {
    pluralize(number, "address", "addresses")
}

/// Returns the addresses that [`remove_addresses`] would remove.
///
/// # Errors
/// The kernel reports an error.
pub fn preview_removal(
    state: &AssignerState,
    is_needed: impl Fn(&InterfaceAddress) -> bool,
) -> anyhow::Result<BTreeSet<InterfaceAddress>> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let (_, assigned) = assigned_addresses(&mut netlink, state, &BTreeSet::new())?;
    Ok(assigned.into_iter().filter(|entry| !is_needed(entry)).collect())
}

/// Removes the addresses that any run of [`add_addresses`] added, except the addresses for which
/// `is_needed` returns true. Returns the removed addresses and the kept addresses.
///
/// # Errors
/// The kernel reports an error, or the state file cannot be written.
pub fn remove_addresses(
    state: &mut AssignerState,
    is_needed: impl Fn(&InterfaceAddress) -> bool,
) -> anyhow::Result<(BTreeSet<InterfaceAddress>, BTreeSet<InterfaceAddress>)> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let (_, assigned) = assigned_addresses(&mut netlink, state, &BTreeSet::new())?;
    let (kept_addresses, removed_addresses): (BTreeSet<_>, BTreeSet<_>) =
        assigned.into_iter().partition(is_needed);
    delete_addresses(&mut netlink, &Vec::from_iter(removed_addresses.iter().copied()))?;
    state.write_subset(AssignedResources {
        addresses: kept_addresses.clone(),
        ..state.assigned.clone()
    })?;
    Ok((removed_addresses, kept_addresses))
}

/// Returns the addresses that an assigner added and that are still on their interface. The first
/// set contains the desired addresses, the second set the obsolete addresses.
///
/// An address in the form of a pool address counts as added by an assigner if the state file lists
/// it. A desired address also counts if it has the mark (`netlink::POOL_ADDRESS_PROTOCOL`). An
/// obsolete address with only the mark does not count, because it can belong to another map.
fn assigned_addresses(
    netlink: &mut Netlink,
    state: &AssignerState,
    desired_addresses: &BTreeSet<InterfaceAddress>,
) -> io::Result<(BTreeSet<InterfaceAddress>, BTreeSet<InterfaceAddress>)> {
    let present_addresses = netlink.addresses()?;
    let is_recorded = |entry: &InterfaceAddress| state.assigned.addresses.contains(entry);
    let assigned = present_addresses.iter().filter(|(entry, address_state)| {
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

/// Probes the network for other hosts that use one of the IPv4 addresses of `candidates`.
///
/// Probes all interfaces at the same time, but no interface that is down or does not use ARP.
/// Returns each address in use with the Ethernet address of the host that uses it.
fn probe_network(
    candidates: &[InterfaceAddress],
    links: &BTreeMap<u32, Link>,
) -> anyhow::Result<BTreeMap<Ipv4Addr, arp::MacAddress>> {
    let mut addresses_by_link: BTreeMap<u32, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for entry in candidates {
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
            .map(|(interface, addresses)| {
                let (link, progress, host_macs) = (&links[interface], &progress, &host_macs);
                let source_mac = link.arp_mac.expect("links without ARP were removed above");
                scope.spawn(move || {
                    arp::probe(*interface, source_mac, host_macs, addresses, |fraction| {
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

/// Announces the IPv4 addresses twice (RFC 5227, section 2.3). Ignores failures: if an announcement
/// is lost, the old entries in the ARP caches of the neighbours expire later.
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

/// Waits until duplicate address detection has finished. Returns the addresses that another host
/// uses, and the addresses that are no longer on their interface. Fails if the detection takes too
/// long, or if an address that is not returned cannot be bound.
fn wait_until_usable(
    netlink: &mut Netlink,
    addresses: &[InterfaceAddress],
) -> anyhow::Result<Vec<InterfaceAddress>> {
    let deadline = Instant::now() + DAD_TIMEOUT;
    loop {
        let present_addresses = netlink.addresses()?;
        let state_of = |entry: &&InterfaceAddress| present_addresses.get(entry);
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

/// Returns a progress bar, which is drawn only on a terminal.
fn progress_bar(length: u64, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%");
    ProgressBar::new(length)
        .with_style(style.expect("a constant template"))
        .with_message(message.to_owned())
}

#[cfg(test)]
mod tests;
