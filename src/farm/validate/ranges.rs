//! Validation of ranges: each range, ranges and the network, overlaps, and loopback ranges.

use std::net::{IpAddr, Ipv4Addr};

use super::{error, warning};
use crate::farm::finding::{Finding, quote_key_part, suggest};
use crate::farm::{Farm, ServerRange};
use crate::interface::reserved_addresses;
use crate::range::{Range, subtract};

/// Loopback addresses that other software uses.
const USED_LOOPBACK: [(Ipv4Addr, &str); 4] = [
    (Ipv4Addr::LOCALHOST, "the loopback address of all programs"),
    (Ipv4Addr::new(127, 0, 0, 53), "systemd-resolved"),
    (Ipv4Addr::new(127, 0, 0, 54), "systemd-resolved"),
    (Ipv4Addr::new(127, 0, 1, 1), "the host name on Debian"),
];

/// Addresses that no host of a network can have, with the reason.
const NON_HOST_RANGES: [(&str, &str); 6] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::/127", "unspecified and loopback"),
    ("ff00::/8", "multicast"),
];

impl Farm {
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
            let known = self.pool_names().collect::<Vec<_>>();
            let remedy = format!(
                "{}; or add [pool.{}]",
                suggest(&entry.pool, known.into_iter()),
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

    fn validate_addresses(
        &self,
        key: &str,
        addresses: &Range,
        exclude: &[Range],
        findings: &mut Vec<Finding>,
    ) {
        for (text, purpose) in NON_HOST_RANGES {
            let range: Range = text.parse().expect("a range");
            if let Some(overlap) = range.intersection(addresses) {
                let message = format!("{overlap} cannot be used by hosts ({purpose})");
                let remedy = format!(
                    "remove {overlap} from the range (loopback addresses belong in [loopback])"
                );
                findings.push(Finding::new(error("not-hosts"), key, addresses, message, remedy));
            }
        }
        for dhcp in &self.network.dhcp_ranges {
            if let Some(overlap) = addresses.intersection(dhcp) {
                let message = format!("{overlap} is also in the DHCP range {dhcp}");
                let remedy = "exclude it here or in the DHCP server";
                findings.push(Finding::new(warning("dhcp"), key, addresses, message, remedy));
            }
        }
        let allocatable = subtract(&[*addresses], exclude);
        let subnet_overlaps: Vec<_> = self
            .network
            .subnets
            .iter()
            .filter_map(|net| Some((*net, Range::from(*net).intersection(addresses)?)))
            .collect();
        if let Some((net, overlap)) =
            subnet_overlaps.iter().find(|(_, overlap)| overlap != addresses)
        {
            let message = format!("only {overlap} of {addresses} is in subnet {net}");
            let remedy = "write one range for each subnet";
            findings.push(Finding::new(error("spans-subnets"), key, addresses, message, remedy));
        } else if !subnet_overlaps.is_empty() {
            let never_allocated: Vec<IpAddr> = subnet_overlaps
                .iter()
                .flat_map(|(net, _)| reserved_addresses(*net))
                .filter(|address| allocatable.iter().any(|range| range.contains(*address)))
                .collect();
            if !never_allocated.is_empty() && addresses.first().is_ipv4() {
                let message = format!(
                    "{} cannot be allocated: network or broadcast address of the subnet",
                    join(&never_allocated)
                );
                let remedy = "exclude them to silence this warning; they are never allocated";
                findings.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else if self.network.subnets.is_empty() {
            let ends: Vec<IpAddr> = allocatable.iter().flat_map(ends_of_24).take(4).collect();
            if !ends.is_empty() {
                let message =
                    format!("{} would be the network or broadcast address of a /24", join(&ends));
                let remedy = "exclude them, or list the subnets under [network] subnets";
                findings.push(Finding::new(warning("broadcast"), key, addresses, message, remedy));
            }
        } else {
            let message = format!("{addresses} is in no subnet of [network]");
            let remedy = "correct the range, or add its subnet";
            findings.push(Finding::new(warning("no-subnet"), key, addresses, message, remedy));
        }
    }

    /// Reports overlaps of ranges. The function compares the sorted ranges in one pass.
    pub(super) fn validate_overlaps(&self, findings: &mut Vec<Finding>) {
        let mut sorted_ranges: Vec<(Range, usize, usize)> = self
            .ranges
            .iter()
            .enumerate()
            .flat_map(|(index, entry)| {
                let item_index =
                    move |(item_index, range): (usize, &Range)| (*range, index, item_index);
                entry.addresses.iter().enumerate().map(item_index)
            })
            .collect();
        sorted_ranges.sort_unstable();
        let Some(mut widest) = sorted_ranges.first().copied() else { return };
        for next in sorted_ranges.into_iter().skip(1) {
            if let Some(overlap) = widest.0.intersection(&next.0) {
                let (a, b) = if widest.1 <= next.1 { (widest, next) } else { (next, widest) };
                findings.push(self.overlap_finding(overlap, a, b));
            }
            let same_family = widest.0.first().is_ipv4() == next.0.first().is_ipv4();
            if !same_family || next.0.last() > widest.0.last() {
                widest = next;
            }
        }
    }

    fn overlap_finding(
        &self,
        overlap: Range,
        (range_a, index_a, item_index_a): (Range, usize, usize),
        (range_b, index_b, item_index_b): (Range, usize, usize),
    ) -> Finding {
        let server = |index: usize| self.ranges[index].server.as_deref().unwrap_or_default();
        let (server_a, server_b) = (server(index_a), server(index_b));
        let key = format!("range[{index_b}].addresses[{item_index_b}]");
        let other = format!("range[{index_a}].addresses[{item_index_a}]");
        if server_a.eq_ignore_ascii_case(server_b) {
            let message = format!("{range_b} and {range_a} ({other}) overlap in {overlap}");
            let remedy = "remove the shared addresses from one of them";
            return Finding::new(error("overlap"), key, range_b, message, remedy);
        }
        let message =
            format!("{overlap} belongs to two servers, {server_a:?} ({other}) and {server_b:?}");
        let remedy = "remove the addresses from one of the servers";
        Finding::new(error("two-servers"), key, range_b, message, remedy)
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
            if let Some(other) =
                ranges[..item_index].iter().find(|other| other.intersection(range).is_some())
            {
                let message = format!("{range} and {other} overlap");
                let remedy = "remove the shared addresses from one of them";
                findings.push(Finding::new(error("overlap"), &key, range, message, remedy));
            }
            let allocatable = subtract(&[*range], &self.loopback.exclude);
            for (address, purpose) in USED_LOOPBACK {
                if allocatable.iter().any(|range| range.contains(address.into())) {
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

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the first address that ends in 0 and the first address that ends in 255.
fn ends_of_24(range: &Range) -> impl Iterator<Item = IpAddr> {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else {
        return [None, None].into_iter().flatten();
    };
    let (first, last) = (first.to_bits(), last.to_bits());
    let next = |low: u32| {
        let same_block = first & !255 | low;
        let address = if same_block < first { same_block.checked_add(256)? } else { same_block };
        (address <= last).then(|| IpAddr::V4(Ipv4Addr::from_bits(address)))
    };
    [next(0), next(255)].into_iter().flatten()
}
