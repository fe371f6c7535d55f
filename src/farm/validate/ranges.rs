//! Validates ranges: the values of each range, their subnets, overlaps, and loopback ranges.

use std::net::{IpAddr, Ipv4Addr};

use super::{error, warning};
use crate::farm::finding::{Finding, Level, quote_key_part, suggest};
use crate::farm::{Farm, ServerRange};
use crate::interface::reserved_addresses;
use crate::pool::non_host_parts;
use crate::range::{Range, subtract};

/// Loopback addresses that other software uses.
const USED_LOOPBACK_ADDRESSES: [(Ipv4Addr, &str); 4] = [
    (Ipv4Addr::LOCALHOST, "the loopback address of all programs"),
    (Ipv4Addr::new(127, 0, 0, 53), "systemd-resolved"),
    (Ipv4Addr::new(127, 0, 0, 54), "systemd-resolved"),
    (Ipv4Addr::new(127, 0, 1, 1), "the host name on Debian"),
];

/// Link-local addresses, with the severity and the reason of a finding about them.
const LINK_LOCAL_RANGES: [(&str, Level, &str); 2] = [
    (
        "169.254.0.0/16",
        Level::Warning,
        "routers do not forward it, and hosts choose such addresses at random",
    ),
    ("fe80::/10", Level::Error, "a program cannot bind it without the name of an interface"),
];

impl Farm {
    /// Reports values of a range that are missing or do not fit the other values of the farm.
    pub(super) fn validate_range(
        &self,
        index: usize,
        entry: &ServerRange,
        findings: &mut Vec<Finding>,
    ) {
        let key = format!("range[{index}]");
        if entry.addresses.is_empty() {
            let remedy = "add addresses = \"10.0.5.10-10.0.5.99\"";
            let message = "a range has no addresses";
            let key = format!("{key}.addresses");
            findings.push(Finding::new(error("no-addresses"), key, "", message, remedy));
        }
        let servers = self.servers.iter().map(|server| &*server.name);
        match &entry.server {
            Some(name) if !servers.clone().any(|server| server.eq_ignore_ascii_case(name)) => {
                let message = format!("no server is named {name:?}");
                let remedy = if self.servers.is_empty() {
                    format!("add [server.{}]", quote_key_part(name))
                } else {
                    suggest(name, servers)
                };
                let key = format!("{key}.server");
                findings.push(Finding::new(error("unknown-server"), key, name, message, remedy));
            }
            None if self.servers.len() > 1 => {
                let message = "a range has no server, but the farm has several";
                let remedy = "add server = \"NAME\"";
                let key = format!("{key}.server");
                findings.push(Finding::new(error("no-server"), key, "", message, remedy));
            }
            _ => {}
        }
        if !self.pool_names().any(|name| name == entry.pool) {
            let message = format!("no pool is named {:?}", entry.pool);
            let pool_names = self.pool_names().collect::<Vec<_>>();
            let remedy = format!(
                "{}; or add [pool.{}]",
                suggest(&entry.pool, pool_names.into_iter()),
                quote_key_part(&entry.pool)
            );
            let key = format!("{key}.pool");
            findings.push(Finding::new(error("unknown-pool"), key, &entry.pool, message, remedy));
        }
        for (item_index, range) in entry.exclude.iter().enumerate() {
            if !entry.addresses.iter().any(|addresses| addresses.intersection(range).is_some()) {
                let key = format!("{key}.exclude[{item_index}]");
                let message = format!("{range} is not in this range, so it excludes nothing");
                let remedy = "fix or remove it";
                findings.push(Finding::new(warning("exclude"), key, range, message, remedy));
            }
        }
        if !entry.addresses.is_empty() && subtract(&entry.addresses, &entry.exclude).is_empty() {
            let message = "every address of the range is excluded";
            let remedy = "exclude fewer addresses";
            let key = format!("{key}.exclude");
            findings.push(Finding::new(warning("empty"), key, "", message, remedy));
        }
        for (item_index, addresses) in entry.addresses.iter().enumerate() {
            let key = format!("{key}.addresses[{item_index}]");
            self.validate_addresses(&key, addresses, &entry.exclude, findings);
        }
    }

    /// Reports addresses whose kind, such as multicast, makes them unsuitable in any network.
    pub(super) fn validate_address_kinds(&self, findings: &mut Vec<Finding>) {
        for (index, entry) in self.ranges.iter().enumerate() {
            for (item_index, addresses) in entry.addresses.iter().enumerate() {
                let key = &format!("range[{index}].addresses[{item_index}]");
                for (overlap, purpose) in non_host_parts(addresses) {
                    let message = format!("{overlap} cannot be used by hosts ({purpose})");
                    let remedy = format!(
                        "remove {overlap} from the range (loopback addresses belong in [loopback])"
                    );
                    findings.push(Finding::new(
                        error("not-hosts"),
                        key,
                        addresses,
                        message,
                        remedy,
                    ));
                }
                for (text, level, reason) in LINK_LOCAL_RANGES {
                    let range: Range = text.parse().expect("a range");
                    if let Some(overlap) = range.intersection(addresses) {
                        let message = format!("{overlap} is link-local: {reason}");
                        let remedy = "choose addresses that the network assigns to this server";
                        let code = (level, "link-local");
                        findings.push(Finding::new(code, key, addresses, message, remedy));
                    }
                }
            }
        }
    }

    /// Reports DHCP, network and broadcast addresses, and ranges that are not inside one subnet.
    fn validate_addresses(
        &self,
        key: &str,
        addresses: &Range,
        excluded: &[Range],
        findings: &mut Vec<Finding>,
    ) {
        for dhcp_range in &self.network.dhcp_ranges {
            if let Some(overlap) = addresses.intersection(dhcp_range) {
                let message = format!("{overlap} is also in the DHCP range {dhcp_range}");
                let remedy = "exclude it here or in the DHCP server";
                findings.push(Finding::new(warning("dhcp"), key, addresses, message, remedy));
            }
        }
        let allocatable_ranges = subtract(&[*addresses], excluded);
        let subnet_overlaps: Vec<_> = self
            .network
            .subnets
            .iter()
            .filter_map(|subnet| Some((*subnet, Range::from(*subnet).intersection(addresses)?)))
            .collect();
        if let Some((subnet, overlap)) =
            subnet_overlaps.iter().find(|(_, overlap)| overlap != addresses)
        {
            let message = format!("only {overlap} of {addresses} is in subnet {subnet}");
            let remedy = "write one range for each subnet";
            findings.push(Finding::new(error("spans-subnets"), key, addresses, message, remedy));
        } else if !subnet_overlaps.is_empty() {
            let never_allocated: Vec<IpAddr> = subnet_overlaps
                .iter()
                .flat_map(|(subnet, _)| reserved_addresses(*subnet))
                .filter(|address| allocatable_ranges.iter().any(|range| range.contains(*address)))
                .collect();
            if !never_allocated.is_empty() && addresses.first().is_ipv4() {
                let message = format!(
                    "{} cannot be allocated: network or broadcast address of the subnet",
                    join_addresses(&never_allocated)
                );
                let remedy = "exclude them to silence this warning; they are never allocated";
                findings.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else if self.network.subnets.is_empty() {
            let prefix_boundaries: Vec<IpAddr> =
                allocatable_ranges.iter().flat_map(boundaries_of_24_bit_prefixes).take(4).collect();
            if !prefix_boundaries.is_empty() {
                let message = format!(
                    "{} would be the network or broadcast address of a /24",
                    join_addresses(&prefix_boundaries)
                );
                let remedy = "exclude them, or list the subnets under [network] subnets";
                findings.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else {
            let message = format!("{addresses} is in no subnet of [network]");
            let remedy = "correct the range, or add its subnet";
            findings.push(Finding::new(warning("no-subnet"), key, addresses, message, remedy));
        }
    }

    /// Reports overlaps of ranges. Sorts the ranges, and compares each range only with the
    /// preceding range whose last address is highest.
    pub(super) fn validate_overlaps(&self, findings: &mut Vec<Finding>) {
        let mut items: Vec<RangeItem> = self
            .ranges
            .iter()
            .enumerate()
            .flat_map(|(index, entry)| {
                let to_item = move |(item_index, range): (usize, &Range)| RangeItem {
                    range: *range,
                    index,
                    item_index,
                };
                entry.addresses.iter().enumerate().map(to_item)
            })
            .collect();
        items.sort_unstable();
        let Some(mut highest_item) = items.first().copied() else { return };
        for item in items.into_iter().skip(1) {
            if let Some(overlap) = highest_item.range.intersection(&item.range) {
                let (earlier, later) = if highest_item.index <= item.index {
                    (highest_item, item)
                } else {
                    (item, highest_item)
                };
                findings.push(self.overlap_finding(overlap, earlier, later));
            }
            let is_same_family =
                highest_item.range.first().is_ipv4() == item.range.first().is_ipv4();
            if !is_same_family || item.range.last() > highest_item.range.last() {
                highest_item = item;
            }
        }
    }

    fn overlap_finding(&self, overlap: Range, earlier: RangeItem, later: RangeItem) -> Finding {
        let server_of =
            |item: RangeItem| self.ranges[item.index].server.as_deref().unwrap_or_default();
        let (earlier_server, later_server) = (server_of(earlier), server_of(later));
        let (earlier_key, later_key) = (earlier.key(), later.key());
        if earlier_server.eq_ignore_ascii_case(later_server) {
            let message = format!(
                "{} and {} ({earlier_key}) overlap in {overlap}",
                later.range, earlier.range
            );
            let remedy = "remove the shared addresses from one of them";
            return Finding::new(error("overlap"), later_key, later.range, message, remedy);
        }
        let message = format!(
            "{overlap} belongs to two servers, {earlier_server:?} ({earlier_key}) and {later_server:?}"
        );
        let remedy = "remove the addresses from one of the servers";
        Finding::new(error("two-servers"), later_key, later.range, message, remedy)
    }

    pub(super) fn validate_loopback(&self, findings: &mut Vec<Finding>) {
        let loopback_network: Range = "127.0.0.0/8".parse().expect("a range");
        let ranges = &self.loopback.ranges;
        for (item_index, range) in ranges.iter().enumerate() {
            let key = format!("loopback.ranges[{item_index}]");
            if loopback_network.intersection(range) != Some(*range) {
                let message = format!("{range} is not inside 127.0.0.0/8");
                let remedy = "choose a part of it, such as 127.100.0.0/20";
                findings.push(Finding::new(error("not-loopback"), key, range, message, remedy));
                continue;
            }
            if let Some(earlier) =
                ranges[..item_index].iter().find(|earlier| earlier.intersection(range).is_some())
            {
                let message = format!("{range} and {earlier} overlap");
                let remedy = "remove the shared addresses from one of them";
                findings.push(Finding::new(error("overlap"), &key, range, message, remedy));
            }
            let allocatable_ranges = subtract(&[*range], &self.loopback.exclude);
            for (address, purpose) in USED_LOOPBACK_ADDRESSES {
                if allocatable_ranges.iter().any(|range| range.contains(address.into())) {
                    let (message, remedy) = if address == Ipv4Addr::LOCALHOST {
                        (
                            format!("{address} is {purpose} and is never allocated"),
                            "begin the range above it",
                        )
                    } else {
                        (format!("{address} is used by other software: {purpose}"), "exclude it")
                    };
                    let code = warning("taken-loopback");
                    findings.push(Finding::new(code, &key, range, message, remedy));
                }
            }
        }
    }
}

/// A range of the farm with the two indices in its key. Items are ordered by their ranges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RangeItem {
    range: Range,
    /// The index in [`Farm::ranges`].
    index: usize,
    /// The index in [`ServerRange::addresses`].
    item_index: usize,
}

impl RangeItem {
    fn key(&self) -> String {
        format!("range[{}].addresses[{}]", self.index, self.item_index)
    }
}

fn join_addresses(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the first address with the last octet 0 and the first address with the last octet 255 in
/// an IPv4 range.
fn boundaries_of_24_bit_prefixes(range: &Range) -> impl Iterator<Item = IpAddr> {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else {
        return [None, None].into_iter().flatten();
    };
    let (first_bits, last_bits) = (first.to_bits(), last.to_bits());
    let first_with_octet = |last_octet: u32| {
        let candidate_bits = first_bits & !255 | last_octet;
        let bits = if candidate_bits < first_bits {
            candidate_bits.checked_add(256)?
        } else {
            candidate_bits
        };
        (bits <= last_bits).then(|| IpAddr::V4(Ipv4Addr::from_bits(bits)))
    };
    [first_with_octet(0), first_with_octet(255)].into_iter().flatten()
}
