//! Computes the interface addresses that a server's plan needs. Removes unusable addresses from the
//! plan before the map is created.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, bail};
use ipnet::IpNet;
use vipool::farm::ServerPlan;
use vipool::interface::Interface;
use vipool::map::Plan;
use vipool::pool::{Pool, PoolKind};
use vipool::range::{Range, subtract};

use super::netlink::{InterfaceAddress, Netlink};
use super::state::PlannedSizes;

/// Lists the interfaces with the host's own addresses. Leaves out addresses that look like pool
/// addresses (`AddressState::is_pool_like`), because an assigner may have added them.
///
/// # Errors
/// The kernel's routing socket fails.
pub fn host_interfaces() -> anyhow::Result<Vec<Interface>> {
    let mut netlink = Netlink::open()?;
    let addresses = netlink.addresses()?;
    let host_addresses = |index: u32| {
        addresses
            .iter()
            .filter(move |(entry, state)| entry.interface == index && !state.is_pool_like)
            .filter_map(|(entry, state)| IpNet::new(entry.address, state.prefix_length).ok())
            .collect()
    };
    let links = netlink.links()?.into_iter();
    Ok(links
        .map(|link| Interface {
            index: link.index,
            addresses: host_addresses(link.index),
            name: link.name,
        })
        .collect())
}

/// Returns every virtual IP of the pools with its interface.
///
/// # Errors
/// An address of the pools is not in the subnet of any interface.
pub fn desired_addresses(server_plan: &ServerPlan) -> anyhow::Result<BTreeSet<InterfaceAddress>> {
    let find_interface = |address: IpAddr| {
        let mut assignments = server_plan.assignments.iter();
        let assignment = assignments
            .find(|assignment| assignment.ranges.iter().any(|range| range.contains(address)));
        assignment.map(|assignment| InterfaceAddress { interface: assignment.index, address })
    };
    let pools = server_plan.plan.pools.iter().filter(|pool| pool.kind() == PoolKind::VirtualIp);
    pools
        .flat_map(|pool| (0..pool.slot_count()).filter_map(|slot| pool.address(slot)))
        .map(|address| {
            find_interface(address)
                .with_context(|| format!("no interface has a subnet with {address}"))
        })
        .collect()
}

/// Returns the sizes of the pools in a plan.
pub fn planned_sizes(plan: &Plan) -> PlannedSizes {
    let size = |kind: PoolKind| {
        plan.pools.iter().filter(|pool| pool.kind() == kind).map(Pool::slot_count).sum()
    };
    PlannedSizes { virtual_ips: size(PoolKind::VirtualIp), loopback: size(PoolKind::Loopback) }
}

/// Checks that a plan has at least half as many addresses as the previous plan.
///
/// # Errors
/// The number of virtual IPs or the number of loopback addresses is less than half of the previous
/// number.
pub fn check_not_halved(
    previous_sizes: PlannedSizes,
    new_sizes: PlannedSizes,
) -> anyhow::Result<()> {
    for (kind, previous_count, new_count) in [
        ("virtual IPs", previous_sizes.virtual_ips, new_sizes.virtual_ips),
        ("loopback addresses", previous_sizes.loopback, new_sizes.loopback),
    ] {
        if new_count < previous_count.div_ceil(2) {
            bail!("the farm file leaves {new_count} of {previous_count} {kind}");
        }
    }
    Ok(())
}

/// Returns the plan without the unusable addresses and without their reservations.
pub fn without_unusable_addresses(mut plan: Plan, unusable_addresses: &BTreeSet<IpAddr>) -> Plan {
    let excluded_ranges: Vec<Range> =
        unusable_addresses.iter().map(|address| Range::from(*address)).collect();
    for pool in plan.pools.iter_mut().filter(|pool| pool.kind() == PoolKind::VirtualIp) {
        // The last range of a pool can have more addresses than slots. So clip each range to the
        // addresses that have a slot.
        let clip_to_slots = |first_slot: u32, range: &Range, next_slot: u32| {
            let last_address = range.nth(u128::from(next_slot - first_slot) - 1).expect("a slot");
            Range::new(range.first(), last_address).expect("in order")
        };
        let next_slots =
            pool.blocks().iter().skip(1).map(|(slot, _)| *slot).chain([pool.slot_count()]);
        let ranges: Vec<Range> = pool
            .blocks()
            .iter()
            .zip(next_slots)
            .map(|((slot, range), next_slot)| clip_to_slots(*slot, range, next_slot))
            .collect();
        *pool = Pool::new(pool.name(), pool.kind(), &subtract(&ranges, &excluded_ranges), u32::MAX)
            .expect("parts of a pool's ranges make a pool");
    }
    plan.reservations.retain(|reservation| !unusable_addresses.contains(&reservation.address));
    plan
}

/// Returns the destinations for which `vipool up` compares the host's source addresses before and
/// after it adds addresses.
///
/// In each subnet that contains ranges of the server, one destination is an address that neither
/// the host nor a pool has. Two more destinations are remote addresses (reserved for documentation
/// by RFC 5737 and RFC 3849).
pub fn probe_destinations(server_plan: &ServerPlan, interfaces: &[Interface]) -> Vec<IpAddr> {
    let is_host_address = |address: &IpAddr| {
        interfaces
            .iter()
            .flat_map(|interface| &interface.addresses)
            .any(|net| net.addr() == *address)
    };
    let is_pool_address = |address: &IpAddr| {
        server_plan.plan.pools.iter().any(|pool| pool.slot_of(*address).is_some())
    };
    let neighbours = server_plan.assignments.iter().filter_map(|assignment| {
        let subnet = Range::from(assignment.subnet);
        let mut subnet_addresses =
            (1..=subnet.span().min(1 << 16)).filter_map(|offset| subnet.nth(offset));
        subnet_addresses.find(|address| !is_host_address(address) && !is_pool_address(address))
    });
    let remote_addresses =
        ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("an address"));
    neighbours.chain(remote_addresses).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_may_lose_at_most_half_of_its_addresses() {
        let sizes = |virtual_ips, loopback| PlannedSizes { virtual_ips, loopback };
        for (previous_sizes, new_sizes) in [
            (sizes(0, 0), sizes(0, 0)),
            (sizes(0, 0), sizes(5, 5)),
            (sizes(2, 10), sizes(1, 5)),
            (sizes(3, 0), sizes(2, 0)),
        ] {
            assert!(
                check_not_halved(previous_sizes, new_sizes).is_ok(),
                "{previous_sizes:?} {new_sizes:?}"
            );
        }
        for (previous_sizes, new_sizes) in
            [(sizes(1, 0), sizes(0, 0)), (sizes(3, 0), sizes(1, 9)), (sizes(90, 10), sizes(90, 4))]
        {
            let error = check_not_halved(previous_sizes, new_sizes).unwrap_err().to_string();
            assert!(error.starts_with("the farm file leaves "), "{error}");
        }
    }
}
