//! Network interfaces as plain values, and the interface that a range belongs to.
//!
//! A range belongs to the interface whose subnet contains the whole range. If subnets are nested,
//! the longest prefix wins. [`assign`] removes unusable addresses from the range: the network and
//! broadcast address of the subnet, the host's own addresses, and the addresses that the caller
//! excludes.
//!
//! Addresses that vipool added to an interface are not the host's own. The caller removes such
//! addresses from [`Interface::addresses`].

use std::net::IpAddr;

use ipnet::IpNet;

use crate::range::{Range, subtract};

/// A network interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The index of the interface in the kernel.
    pub index: u32,
    /// The name, such as `eth0`.
    pub name: String,
    /// The addresses, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
}

/// The usable addresses of some ranges on one subnet of one interface, as [`assign`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The index of the interface in the kernel.
    pub index: u32,
    /// The name of the interface.
    pub interface: String,
    /// The subnet that contains the ranges.
    pub subnet: IpNet,
    /// The usable addresses, sorted. The list may be empty.
    pub ranges: Vec<Range>,
}

/// The reason why a range belongs to no interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatchError {
    /// No interface has a subnet that contains an address of the range.
    #[error("no interface has an address in the subnet of {0}")]
    NoInterface(Range),
    /// Several interfaces have an address in the same subnet.
    #[error("{range} belongs to {subnet}, but several interfaces are in that subnet: {}", .interfaces.join(", "))]
    Ambiguous {
        /// The range.
        range: Range,
        /// The subnet.
        subnet: IpNet,
        /// The names of the interfaces.
        interfaces: Vec<String>,
    },
    /// A subnet contains only a part of the range.
    #[error("{range} is not inside one subnet: only a part of it is in {subnet} of {interface}")]
    SpansSubnets {
        /// The range.
        range: Range,
        /// The subnet that contains a part of the range.
        subnet: IpNet,
        /// The name of the interface in that subnet.
        interface: String,
    },
}

/// Returns the interface and the subnet that a range belongs to.
///
/// ```
/// use vipool::interface::{Interface, interface_of};
///
/// let eth0 = Interface {
///     index: 2,
///     name: "eth0".into(),
///     addresses: vec!["10.0.5.1/24".parse()?],
/// };
/// let (found, subnet) = interface_of(&"10.0.5.10-10.0.5.99".parse()?, std::slice::from_ref(&eth0))?;
/// assert_eq!((&*found.name, subnet.to_string()), ("eth0", "10.0.5.0/24".into()));
/// assert!(interface_of(&"10.0.6.10-10.0.6.99".parse()?, &[eth0]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Fails if no subnet contains the whole range, or if several interfaces are in that subnet. Also
/// fails if a smaller subnet contains only a part of the range. A single address (/32 or /128) does
/// not count as a subnet here.
pub fn interface_of<'i>(
    range: &Range,
    interfaces: &'i [Interface],
) -> Result<(&'i Interface, IpNet), MatchError> {
    let candidates: Vec<_> = interfaces
        .iter()
        .flat_map(|interface| {
            interface.addresses.iter().map(move |address| (interface, address.trunc()))
        })
        .filter(|(_, subnet)| Range::from(*subnet).intersection(range).is_some())
        .collect();
    let contains_range = |subnet: &IpNet| Range::from(*subnet).intersection(range) == Some(*range);
    // A prefix of full length is an address without a subnet, so it does not divide a range.
    let partial_match = candidates
        .iter()
        .filter(|(_, subnet)| {
            !contains_range(subnet) && subnet.prefix_len() < subnet.max_prefix_len()
        })
        .max_by_key(|(_, subnet)| subnet.prefix_len());
    let containing_match = candidates
        .iter()
        .filter(|(_, subnet)| contains_range(subnet))
        .max_by_key(|(_, subnet)| subnet.prefix_len());
    match (containing_match, partial_match) {
        (None, None) => Err(MatchError::NoInterface(*range)),
        (Some((_, containing_subnet)), Some((interface, partial_subnet)))
            if partial_subnet.prefix_len() > containing_subnet.prefix_len() =>
        {
            Err(spans_subnets(*range, *partial_subnet, interface))
        }
        (None, Some((interface, partial_subnet))) => {
            Err(spans_subnets(*range, *partial_subnet, interface))
        }
        (Some((interface, subnet)), _) => {
            let mut interface_names: Vec<_> = candidates
                .iter()
                .filter(|(_, candidate_subnet)| candidate_subnet == subnet)
                .map(|(interface, _)| interface.name.clone())
                .collect();
            interface_names.dedup();
            if interface_names.len() > 1 {
                return Err(MatchError::Ambiguous {
                    range: *range,
                    subnet: *subnet,
                    interfaces: interface_names,
                });
            }
            Ok((interface, *subnet))
        }
    }
}

fn spans_subnets(range: Range, subnet: IpNet, interface: &Interface) -> MatchError {
    MatchError::SpansSubnets { range, subnet, interface: interface.name.clone() }
}

/// Returns the addresses of a subnet that no session can use.
///
/// These are the network and the broadcast address of IPv4, and the subnet-router anycast address
/// of IPv6 (RFC 4291, 2.6.1). Point-to-point subnets (/31 of RFC 3021, /127 of RFC 6164) and single
/// addresses have no reserved addresses.
pub fn reserved_addresses(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    let has_reserved_addresses = subnet.prefix_len() + 2 <= subnet.max_prefix_len();
    let (network, broadcast) = match subnet {
        IpNet::V4(_) => (Some(subnet.network()), Some(subnet.broadcast())),
        IpNet::V6(_) => (Some(subnet.network()), None),
    };
    [network, broadcast].into_iter().flatten().filter(move |_| has_reserved_addresses)
}

/// Returns the usable addresses of the ranges for each subnet, and the errors.
///
/// Each interface and subnet has one [`Assignment`]. The assignments are in the order of `ranges`.
/// There is one error for each range that belongs to no interface.
///
/// The function does not iterate over addresses, so an IPv6 /64 costs the same as a single address.
#[must_use]
pub fn assign(
    ranges: &[Range],
    excluded: &[Range],
    interfaces: &[Interface],
) -> (Vec<Assignment>, Vec<MatchError>) {
    let host_addresses =
        interfaces.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr);
    let mut unusable: Vec<Range> = host_addresses.map(Range::from).collect();
    unusable.extend(excluded);
    let mut assignments: Vec<Assignment> = Vec::new();
    let mut errors = Vec::new();
    for range in ranges {
        let (interface, subnet) = match interface_of(range, interfaces) {
            Ok(interface_and_subnet) => interface_and_subnet,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let reserved: Vec<Range> = reserved_addresses(subnet).map(Range::from).collect();
        let usable_ranges = subtract(&subtract(&[*range], &unusable), &reserved);
        match assignments
            .iter_mut()
            .find(|assignment| assignment.index == interface.index && assignment.subnet == subnet)
        {
            Some(assignment) => assignment.ranges.extend(usable_ranges),
            None => assignments.push(Assignment {
                index: interface.index,
                interface: interface.name.clone(),
                subnet,
                ranges: usable_ranges,
            }),
        }
    }
    for assignment in &mut assignments {
        assignment.ranges.sort_unstable();
    }
    (assignments, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(table: &[(&str, &[&str])]) -> Vec<Interface> {
        let interface = |(position, (name, addresses)): (usize, &(&str, &[&str]))| Interface {
            index: position as u32 + 1,
            name: (*name).into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        table.iter().enumerate().map(interface).collect()
    }

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn longest_containing_prefix_wins() {
        let host_interfaces = interfaces(&[
            ("lo", &["127.0.0.1/8", "::1/128"]),
            ("eth0", &["10.0.5.1/16", "10.0.5.2/16", "2001:db8::1/64"]),
            ("eth1", &["10.0.9.1/24", "10.0.5.77/32"]),
            ("eth2", &["192.168.1.1/24"]),
            ("eth3", &["192.168.1.2/24"]),
            ("ppp0", &["172.16.0.1/31"]),
        ]);
        let table = [
            ("10.0.5.10-10.0.5.99", Ok("eth0")),
            ("10.0.9.10-10.0.9.20", Ok("eth1")),
            ("10.0.8.250-10.0.9.3", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.0.9.255-10.0.10.3", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.0.255.0-10.1.0.9", Err("only a part of it is in 10.0.0.0/16 of eth0")),
            ("10.0.0.0/16", Err("only a part of it is in 10.0.9.0/24 of eth1")),
            ("10.2.0.0/16", Err("no interface has an address in the subnet of")),
            ("192.168.1.10", Err("several interfaces are in that subnet: eth2, eth3")),
            ("172.16.0.0/31", Ok("ppp0")),
            ("10.0.5.77", Ok("eth1")),
            ("2001:db8::/64", Ok("eth0")),
            ("2001:db8::-2001:db8:0:1::", Err("only a part of it is in 2001:db8::/64 of eth0")),
            ("2001:db8:1::/64", Err("no interface")),
        ];
        for (range, expected) in table {
            match (interface_of(&range.parse().unwrap(), &host_interfaces), expected) {
                (Ok((interface, _)), Ok(name)) => assert_eq!(interface.name, name, "{range}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (result, _) => panic!("{range}: {result:?}"),
            }
        }
        assert_eq!(
            interface_of(&"10.0.0.1".parse().unwrap(), &[]),
            Err(MatchError::NoInterface("10.0.0.1".parse().unwrap()))
        );
    }

    #[test]
    fn reserved_host_and_excluded_addresses_are_removed() {
        type Row = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
        );
        let table: [Row; 9] = [
            ("10.0.5.1/24", &["10.0.5.0/24"], &[], &["10.0.5.2-10.0.5.254"]),
            ("10.0.5.1/16", &["10.0.5.0/24"], &[], &["10.0.5.0", "10.0.5.2-10.0.5.255"]),
            (
                "10.0.5.20/24",
                &["10.0.5.10-10.0.5.29"],
                &["10.0.5.12-10.0.5.13"],
                &["10.0.5.10-10.0.5.11", "10.0.5.14-10.0.5.19", "10.0.5.21-10.0.5.29"],
            ),
            ("10.0.5.0/31", &["10.0.5.0/31"], &[], &["10.0.5.1"]),
            ("10.0.5.9/30", &["10.0.5.8/30"], &[], &["10.0.5.10"]),
            ("10.0.5.9/32", &["10.0.5.9"], &[], &[]),
            ("10.0.5.1/24", &["10.0.5.9"], &["10.0.5.0/24"], &[]),
            (
                "2001:db8::1/64",
                &["2001:db8::/64"],
                &[],
                &["2001:db8::2-2001:db8::ffff:ffff:ffff:ffff"],
            ),
            ("2001:db8::1/127", &["2001:db8::/127"], &[], &["2001:db8::"]),
        ];
        for (host_address, requested, excluded, usable) in table {
            let (assignments, errors) = assign(
                &ranges(requested),
                &ranges(excluded),
                &interfaces(&[("eth0", &[host_address])]),
            );
            assert_eq!(errors, []);
            assert_eq!(assignments[0].ranges, ranges(usable), "{host_address} {requested:?}");
        }
    }

    #[test]
    fn ranges_are_grouped_by_subnet() {
        let host_interfaces =
            interfaces(&[("eth0", &["10.0.5.1/24", "10.0.6.1/24"]), ("eth1", &["10.0.7.1/24"])]);
        let requested = ranges(&["10.0.7.9", "10.0.6.9", "10.0.5.9", "10.0.5.7", "10.0.9.9"]);
        let (assignments, errors) = assign(&requested, &[], &host_interfaces);
        let assigned_ranges: Vec<_> = assignments
            .iter()
            .map(|assignment| {
                let Assignment { interface, subnet, ranges, .. } = assignment;
                (&**interface, subnet.to_string(), ranges.clone())
            })
            .collect();
        assert_eq!(
            assigned_ranges,
            [
                ("eth1", "10.0.7.0/24".to_owned(), ranges(&["10.0.7.9"])),
                ("eth0", "10.0.6.0/24".to_owned(), ranges(&["10.0.6.9"])),
                ("eth0", "10.0.5.0/24".to_owned(), ranges(&["10.0.5.7", "10.0.5.9"])),
            ]
        );
        assert_eq!(errors, [MatchError::NoInterface("10.0.9.9".parse().unwrap())]);
    }
}
